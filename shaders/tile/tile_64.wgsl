// tile_64: 64x64 outputs of 64 invocations, 8 side by side; see workgroup.

const TILE_M = 64u;
const TILE_N = 64u;
const TILE_LANES = 64u;
const TILE_SIDE = 8u;
const TILE_DEPTH = 16u;

