# The server, without the embedded database: give it a PostgreSQL by DATABASE_URL.
FROM node:24-slim AS install
WORKDIR /thrum
COPY package.json package-lock.json ./
COPY packages/protocol/package.json packages/protocol/
COPY packages/client/package.json packages/client/
COPY packages/core/package.json packages/core/
COPY packages/server/package.json packages/server/
# Nothing here needs an install script; the optional packages are the embedded database and a native reader.
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund

FROM node:24-slim
ENV NODE_ENV=production HOST=0.0.0.0 PORT=8080
WORKDIR /thrum
COPY --from=install /thrum/node_modules node_modules
COPY package.json ./
COPY packages packages
COPY docs/API_CONTRACT.yml docs/
USER node
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/healthz`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "packages/server/src/bin.mjs", "serve"]
