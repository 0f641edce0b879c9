//! Where unsafe code may stand. The lint denies it in the whole workspace; these files allow it, each with its reason.

use std::{fs, path::Path};

const ALLOWED: &[&str] = &[
    // the call of `gemm`, which takes pointers
    "src/cpu/product.rs",
    // Vulkan as a compiler, through `ash`
    "benches/isa/src/driver.rs",
    // allocators that count; nothing of them is in the library
    "tests/gpu/counting.rs",
    // an experimental feature of wgpu, which who opens the device must accept
    "tests/gpu/matrix_units.rs",
    "tests/heap/mod.rs",
];

fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !matches!(name, "target" | "node_modules" | "out" | "dist") && !name.starts_with('.') {
                walk(&path, found);
            }
        } else if name.ends_with(".rs")
            && fs::read_to_string(&path).unwrap().contains(concat!("allow(unsafe", "_code)"))
        {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            found.push(path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"));
        }
    }
}

#[test]
fn unsafe_code_stands_in_the_listed_files_alone() {
    let mut found = vec![];
    walk(Path::new(env!("CARGO_MANIFEST_DIR")), &mut found);
    found.sort();
    let mut allowed = ALLOWED.to_vec();
    allowed.sort_unstable();
    assert_eq!(found, allowed);
}

/// Without the line the lint of the workspace does not hold for the package.
#[test]
fn every_package_has_the_lints_of_the_workspace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("[workspace.lints.rust]\nunsafe_code = \"deny\"\n"));
    let members = manifest.lines().find_map(|l| l.strip_prefix("members = [")).unwrap().trim_end_matches(']');
    let members = members.split(", ").map(|member| member.trim_matches('"'));
    for member in members.chain(["."]) {
        let manifest = fs::read_to_string(root.join(member).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("\n[lints]\nworkspace = true\n"), "{member}");
    }
}
