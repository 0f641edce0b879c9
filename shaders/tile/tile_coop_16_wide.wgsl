// tile_coop_16_wide: 64x64 outputs of 64 invocations, by matrix units of 16x16x16 values and a subgroup of 64; see matrix_units.

const UNIT = 16u;
const TILE_M = 64u;
const TILE_N = 64u;
const TILE_DEPTH = 16u;
const TILE_LANES = 64u;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
