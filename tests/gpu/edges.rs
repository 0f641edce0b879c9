use crate::Check;

pub const CHECKS: &[(&str, Check)] = &[];
