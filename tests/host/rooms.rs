//! The modules at the top of the library, and its files, import one another in one direction only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Imports from one file to another that close a circle, each with its reason. This list can only become shorter: an entry
/// that closes no circle fails the test.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("cpu/blocks", "cpu/product", "the matrix type of a product in WebAssembly"),
    ("cpu/layout", "cpu/pass", "memory is measured by the types of a pass"),
    ("cpu/work", "cpu/pass", "the workspace consists of the types of a pass"),
];

/// Names from the crate's root to a module or an item.
type Names = Vec<String>;

/// The imports of each name.
type Graph = BTreeMap<String, BTreeSet<String>>;

struct Import {
    public: bool,
    /// In this file; `*` for everything.
    name: String,
    /// From the crate's root.
    path: Names,
}

#[derive(Default)]
struct File {
    imports: Vec<Import>,
    /// Its code without the imports.
    body: String,
}

/// Rust without comments and without its unit tests.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join("\n");
    match text.find("\nmod tests {") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// The paths, and the local names, of a list of imports such as `a::{b, c as d}, e::*`.
fn flatten(list: &str, before: &[&str], found: &mut Vec<(Names, String)>) {
    let (mut depth, mut start, mut parts) = (0, 0, vec![]);
    for (i, c) in list.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            parts.push(&list[start..i]);
            start = i + 1;
        }
    }
    parts.push(&list[start..]);
    for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        if let Some((path, inner)) = part.split_once('{') {
            let path: Vec<&str> = before.iter().copied().chain(path.split("::").filter(|n| !n.is_empty())).collect();
            flatten(&inner[..inner.len() - 1], &path, found);
            continue;
        }
        let (path, name) = part.split_once(" as ").unwrap_or((part, part.rsplit("::").next().unwrap()));
        let mut path: Names = before.iter().copied().chain(path.split("::")).map(str::to_owned).collect();
        let mut name = name.to_owned();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
            name = if name == "self" { path[path.len() - 1].clone() } else { name };
        }
        found.push((path, name));
    }
}

/// A path in the file of `module`, from the crate's root; `None` for one that leads out of the crate.
fn absolute(path: &[String], module: &[String], modules: &BTreeSet<Names>) -> Option<Names> {
    let mut base = module.to_vec();
    let rest = match path[0].as_str() {
        "crate" => {
            base.clear();
            &path[1..]
        }
        "self" => &path[1..],
        "super" => {
            let up = path.iter().take_while(|name| *name == "super").count();
            base.truncate(base.len().checked_sub(up)?);
            &path[up..]
        }
        child => {
            base.push(child.to_owned());
            return modules.contains(&base).then(|| [&base, &path[1..]].concat());
        }
    };
    base.extend_from_slice(rest);
    Some(base)
}

/// A file, whose imports may follow any visibility and fill several lines.
fn read(text: &str, module: &[String], modules: &BTreeSet<Names>) -> File {
    let (mut file, text) = (File::default(), code(text));
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let bare = ["pub ", "pub(crate) ", "pub(super) "].into_iter().find_map(|p| line.trim().strip_prefix(p));
        let Some(first) = bare.unwrap_or(line.trim()).strip_prefix("use ") else {
            file.body += line;
            file.body.push('\n');
            continue;
        };
        let mut list = first.to_owned();
        while !list.contains(';') {
            list += lines.next().expect("an import ends");
        }
        let mut found = vec![];
        flatten(list.split(';').next().unwrap(), &[], &mut found);
        let own = found.into_iter().filter_map(|(path, name)| Some((absolute(&path, module, modules)?, name)));
        file.imports.extend(own.map(|(path, name)| Import { public: bare.is_some(), name, path }));
    }
    file
}

/// Every file of the library but those that are documentation alone, by its module.
fn library() -> BTreeMap<Names, File> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut texts) = (vec![src.clone()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(&src).unwrap().with_extension("");
            let names = inside.iter().map(|name| name.to_str().unwrap().to_owned());
            let names: Names = names.filter(|name| !["mod", "lib"].contains(&name.as_str())).collect();
            if !names.first().is_some_and(|room| ["guide", "reliability"].contains(&room.as_str())) {
                texts.insert(names, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let modules: BTreeSet<Names> = texts.keys().cloned().collect();
    texts.into_iter().map(|(module, text)| (module.clone(), read(&text, &module, &modules))).collect()
}

/// The module whose file declares what a path leads to, through whatever exports it; `None` out of the crate.
fn home(path: &[String], library: &BTreeMap<Names, File>) -> Option<Names> {
    let known = (0..=path.len()).rev().find(|&n| library.contains_key(&path[..n]))?;
    let (module, rest) = path.split_at(known);
    let Some(name) = rest.first() else { return Some(module.to_vec()) };
    match library[module].imports.iter().find(|import| import.name == *name) {
        Some(import) => home(&[&import.path, &rest[1..]].concat(), library),
        None => (!module.is_empty()).then(|| module.to_vec()),
    }
}

/// Paths such as `a::b::c` in code.
fn paths(body: &str) -> impl Iterator<Item = Names> {
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = body.split(move |c: char| !inside(c)).filter(|word| word.contains("::"));
    words.map(|word| word.split("::").filter(|name| !name.is_empty()).map(|n| n.trim_matches(':').to_owned()).collect())
}

/// For each file the files that it imports from, or names in a path. What a module exports from below itself counts only if
/// it uses it too.
fn files(library: &BTreeMap<Names, File>) -> Graph {
    let modules: BTreeSet<Names> = library.keys().cloned().collect();
    let mut graph = Graph::new();
    for (module, file) in library.iter().filter(|(module, _)| !module.is_empty()) {
        let words: BTreeSet<&str> = file.body.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let mut found = BTreeSet::new();
        for Import { public, name, path } in &file.imports {
            let path = if name == "*" { &path[..path.len() - 1] } else { path };
            let exported = *public && path.starts_with(module) && !words.contains(name.as_str());
            // a module that is imported counts where a path goes through it
            if !exported && (name == "*" || !modules.contains(path)) {
                found.extend(home(path, library));
            }
        }
        for path in paths(&file.body).filter(|path| !path.is_empty()) {
            let imported = file.imports.iter().find(|import| import.name == path[0]);
            let path = match imported {
                Some(import) if modules.contains(&import.path) => Some([&import.path, &path[1..]].concat()),
                Some(_) => None,
                None => absolute(&path, module, &modules),
            };
            found.extend(path.and_then(|path| home(&path, library)));
        }
        found.remove(module);
        graph.insert(module.join("/"), found.iter().map(|to| to.join("/")).collect());
    }
    graph
}

/// Whether imports lead from one name to another.
fn leads(graph: &Graph, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(name) = open.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            open.extend(graph.get(name).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

/// The imports that lie on a circle.
fn circles(graph: &Graph) -> Vec<(&str, &str)> {
    let edges = graph.iter().flat_map(|(from, all)| all.iter().map(move |to| (from.as_str(), to.as_str())));
    edges.filter(|(from, to)| leads(graph, to, from)).collect()
}

#[test]
fn modules_at_the_top_import_one_another_without_circles() {
    let mut rooms = Graph::new();
    let room = |file: &str| file.split('/').next().unwrap().to_owned();
    for (from, all) in files(&library()) {
        let others = all.iter().map(|to| room(to)).filter(|to| *to != room(&from));
        rooms.entry(room(&from)).or_default().extend(others);
    }
    assert!(rooms.len() > 10 && rooms["backend"].contains("gpu") && rooms["plan"].contains("objective"), "{rooms:?}");
    assert_eq!(circles(&rooms), []);
}

#[test]
fn files_import_one_another_without_circles() {
    let mut graph = files(&library());
    assert!(graph.len() > 60 && graph["plan/head"].contains("plan/budget"), "{graph:?}");
    for (from, to, why) in ALLOWED {
        assert!(
            circles(&graph).contains(&(from, to)),
            "{from} -> {to} ({why}) closes no circle: strike it from the list"
        );
    }
    for (from, to, _) in ALLOWED {
        graph.get_mut(*from).unwrap().remove(*to);
    }
    assert_eq!(circles(&graph), []);
}

#[test]
fn imports_are_read_from_every_form() {
    let names = |path: &str| path.split("::").map(str::to_owned).collect::<Names>();
    let modules = BTreeSet::from(["a", "a::b", "a::c", "h"].map(names));
    let text = "pub use c::D;\nuse crate::{\n    X, a::b::{self, Y}, // crate::x\n    e::F as G,\n};\nuse super::h::*;\nuse std::fs;\n\
                let g = crate::h::i(b::j(), c::k());\n";
    let file = read(text, &names("a"), &modules);
    let found: Vec<(&str, String)> = file.imports.iter().map(|i| (i.name.as_str(), i.path.join("::"))).collect();
    let expected = [("D", "a::c::D"), ("X", "X"), ("b", "a::b"), ("Y", "a::b::Y"), ("G", "e::F"), ("*", "h::*")];
    assert_eq!(found, expected.map(|(name, path)| (name, path.to_owned())));
    assert!(file.imports[0].public && !file.imports[1].public);
    let found: Vec<Names> = paths(&file.body).collect();
    assert_eq!(found, ["crate::h::i", "b::j", "c::k"].map(names));
}

#[test]
fn a_circle_is_found() {
    let graph: Graph = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]
        .map(|(from, to)| (from.to_owned(), BTreeSet::from([to.to_owned()])))
        .into_iter()
        .fold(Graph::new(), |mut graph, (from, to)| {
            graph.entry(from).or_default().extend(to);
            graph
        });
    assert_eq!(circles(&graph), [("b", "c"), ("c", "b")]);
}
