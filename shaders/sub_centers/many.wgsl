// many: several prototypes per class, side by side; the class' cosine is the largest, the first on ties.
fn centers() -> u32 { return settings.centers; }
