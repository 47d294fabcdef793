import { Archive } from "./Archive.ts"
import { archiveSuite } from "./testing/mod.ts"

archiveSuite("MemoryArchive", Archive.layerMemory)
