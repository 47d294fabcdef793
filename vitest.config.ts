import { defineConfig, type ViteUserConfig } from "vitest/config"

const config: ViteUserConfig = defineConfig({
  test: {
    include: ["packages/*/src/**/*.test.ts", "test/**/*.test.ts", "devices/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 60_000
  }
})
export default config
