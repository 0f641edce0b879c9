// tile_64: 64x64 outputs of 64 invocations, 8 by 8; see workgroup.

const TILE_M = 64u;
const TILE_N = 64u;
const TILE_LANES = 64u;
const TILE_DEPTH = 16u;
const LANES_M = 8u;
const LANES_N = 8u;
