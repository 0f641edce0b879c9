// one: a prototype per class.
fn centers() -> u32 { return 1u; }
