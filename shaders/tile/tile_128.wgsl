// tile_128: 128x128 outputs of 128 invocations, 8 by 16; see workgroup.

const TILE_M = 128u;
const TILE_N = 128u;
const TILE_LANES = 128u;
const TILE_DEPTH = 16u;
const LANES_M = 8u;
const LANES_N = 16u;
