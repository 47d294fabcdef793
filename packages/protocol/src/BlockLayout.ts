/**
 * The numbers of the packed block's layout, version 1, that its reader, its encoder and its values share. All of them
 * are part of the wire: none can change without a new version.
 */

/** Bits of the lead byte. The upper half is the version of the layout. */
export const blockVersion = 0x10
export const shiftFlag = 8
export const timeFlag = 4
export const floatFlag = 2
export const packFlag = 1

/** The E byte of blocks whose integers are float32 bit patterns. */
export const bitsExponent = 255
/** Largest E of the binary scales. */
export const binaryExponentMax = 149
/** E of `k / 10^d` is this plus d, for d from 1 to {@link decimalPlacesMax}. */
export const decimalExponent = 192
export const decimalPlacesMax = 9

/** Coefficients of the predictors, in 1/64. The first {@link meanPredictors} are kind M, the others kind D. */
export const predictorA: Int32Array = Int32Array.of(0, 16, 8, 32, 0, 8, 48, 120, -32, 32, 32, 64, -16, 64, 127)
export const predictorB: Int32Array = Int32Array.of(0, 0, -8, -16, 0, 8, 0, -56, -24, -32, 24, -32, -16, 0, -64)
export const meanPredictors = 4
/** A predictor that a later version may describe in the session; an error in this one. */
export const reservedPredictor = 15

/** Residuals in a segment; the last one takes all that remain, up to one less than twice as many. */
export const segmentLength = 20
/** Ones that announce a residual in 32 plain bits. */
export const escapeLength = 24
/** Largest Rice parameter. */
export const riceMax = 30

/** 10^0 … 10^9: what the integers of decimal floats are divided by. All exact. */
export const powersOfTen: ReadonlyArray<number> = Array.from({ length: decimalPlacesMax + 1 }, (_, d) => 10 ** d)

/** The integer of a float32's bits, and the bits of that integer: the order of floats becomes the order of integers. */
export const patternOrder = (bits: number): number => bits ^ ((bits >> 31) & 0x7fffffff)
