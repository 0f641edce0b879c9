//! The modules at the top of the library import one another in one direction only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Rust without comments and without its unit tests.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join("\n");
    match text.find("#[cfg(test)]\nmod tests") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// The text between the brace that opens `text` and the one that closes it.
fn braced(text: &str) -> &str {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return &text[1..i];
        }
    }
    text
}

/// The first names of a list of imports such as `a::{b, c}, D, e::f`.
fn heads(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, vec![]);
    for (i, c) in list.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            parts.push(&list[start..i]);
            start = i + 1;
        }
    }
    parts.push(&list[start..]);
    parts.into_iter().map(head).filter(|name| !name.is_empty()).collect()
}

fn head(path: &str) -> &str {
    path.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The names directly below `crate` that a file uses.
fn used(code: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(_) => names.extend(heads(braced(rest))),
            None => {
                names.insert(head(rest));
            }
        }
    }
    names
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// For each module at the top the modules that it imports; names that `lib.rs` re-exports count for their module.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = code(&fs::read_to_string(src.join("lib.rs")).unwrap());
    let modules: BTreeSet<String> =
        lib.split("mod ").skip(1).filter_map(|rest| rest.split_once(';')).map(|(name, _)| name.to_owned()).collect();
    let mut homes: BTreeMap<String, String> = modules.iter().map(|name| (name.clone(), name.clone())).collect();
    for export in lib.split("pub use ").skip(1) {
        let Some((room, rest)) = export.split_once("::") else { continue };
        let list = if rest.starts_with('{') { braced(rest) } else { rest.split(';').next().unwrap() };
        homes.extend(heads(list).into_iter().map(|name| (name.to_owned(), room.to_owned())));
    }
    let mut all = vec![];
    files(&src, &mut all);
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in all {
        let inside = path.strip_prefix(&src).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = first.trim_end_matches(".rs").to_owned();
        if ["lib", "guide", "reliability"].contains(&room.as_str()) {
            continue;
        }
        let text = code(&fs::read_to_string(&path).unwrap());
        let targets = used(&text).into_iter().filter_map(|name| homes.get(name)).filter(|to| **to != room);
        graph.entry(room.clone()).or_default().extend(targets.cloned());
    }
    graph
}

#[test]
fn modules_at_the_top_import_one_another_without_circles() {
    let mut graph = imports();
    assert!(graph.len() > 10 && graph["backend"].contains("gpu") && graph["plan"].contains("objective"), "{graph:?}");
    // modules that import none of those left are taken away until nothing is left, or a circle
    while !graph.is_empty() {
        let left: BTreeSet<String> = graph.keys().cloned().collect();
        graph.retain(|_, to| to.iter().any(|name| left.contains(name)));
        assert!(graph.len() < left.len(), "these modules import one another in a circle: {graph:?}");
    }
}

#[test]
fn imports_are_read_from_every_form() {
    let text = code("use crate::{\n    A, b::{C, d}, // crate::x\n    e::F,\n};\nlet g = crate::h::i();\n");
    assert_eq!(used(&text), BTreeSet::from(["A", "b", "e", "h"]));
}
