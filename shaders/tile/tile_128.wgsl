// tile_128: 128x128 outputs of 256 invocations, 16 side by side; see workgroup.

const TILE_M = 128u;
const TILE_N = 128u;
const TILE_LANES = 256u;
const TILE_SIDE = 16u;
const TILE_DEPTH = 8u;

