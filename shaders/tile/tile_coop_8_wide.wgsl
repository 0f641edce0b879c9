// tile_coop_8_wide: 32x32 outputs of 32 invocations, by matrix units of 8x8x8 values and a subgroup of 32; see matrix_units.

const UNIT = 8u;
const TILE_M = 32u;
const TILE_N = 32u;
const TILE_DEPTH = 16u;
const TILE_LANES = 32u;

alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;
