// tile_coop_8: 16x16 outputs of 8 invocations, by matrix units of 8x8x8 values and a subgroup of 8; see matrix_units. More
// matrices take lavapipe half a minute to compile.

const UNIT = 8u;
const TILE_M = 16u;
const TILE_N = 16u;
const TILE_DEPTH = 8u;
const TILE_LANES = 8u;

alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;
