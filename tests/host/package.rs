//! The published crates hold the files that they need, and their front pages link to nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// At the top of a crate, beside its folders of sources. cargo writes the first four.
const TOP: [&str; 8] = [
    ".cargo_vcs_info.json",
    "Cargo.lock",
    "Cargo.toml",
    "Cargo.toml.orig",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
];

/// The README's.
const PICTURES: [&str; 2] = ["pictures/time_over_classes.svg", "pictures/train.svg"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files that `cargo package` takes, with forward slashes.
fn packed(package: &str) -> Vec<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["package", "--list", "--allow-dirty", "--offline", "--quiet", "-p", package]).current_dir(root());
    let out = cargo.output().unwrap();
    assert!(out.status.success(), "{package}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(|line| line.replace('\\', "/")).collect()
}

/// All files below a folder, relative to `base`.
fn walk(base: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(base.join(folder)).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        if base.join(&path).is_dir() {
            walk(base, &path, found);
        } else {
            found.push(path.to_str().unwrap().replace('\\', "/"));
        }
    }
}

/// Targets of Markdown's links, inline and by reference, and of HTML's.
fn links(text: &str) -> Vec<&str> {
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let html = ["src=\"", "href=\""].into_iter().flat_map(|start| text.split(start).skip(1));
    let html = html.filter_map(|rest| rest.split('"').next());
    let reference = text.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split_once("]: "));
    inline.chain(html).chain(reference.map(|(_, target)| target.trim())).collect()
}

#[test]
fn a_crate_holds_its_sources_licences_and_front_pages_alone() {
    let (rust, shaders) = (("src", ".rs"), ("shaders", ".wgsl"));
    for (package, folder, sources, pages) in [
        ("margin-softmax", "", &[rust, shaders][..], &[&["CHANGELOG.md", "README.md"][..], &PICTURES].concat()[..]),
        ("margin-softmax-burn", "integrations/burn", &[rust], &[]),
    ] {
        let list = packed(package);
        for file in &list {
            let source = sources.iter().any(|(folder, kind)| {
                file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')) && file.ends_with(kind)
            });
            let known = TOP.contains(&file.as_str()) || pages.contains(&file.as_str());
            assert!(source || known, "{package} holds {file}");
        }
        let mut expected: Vec<String> = ["Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT"].map(String::from).into();
        expected.extend(pages.iter().map(|page| String::from(*page)));
        sources.iter().for_each(|(of, _)| walk(&root().join(folder), &PathBuf::from(of), &mut expected));
        for file in expected {
            assert!(list.contains(&file), "{package} lacks {file}");
        }
    }
}

/// On crates.io a link to a file that is not packed leads nowhere.
#[test]
fn front_pages_link_to_packed_files_and_full_addresses_alone() {
    let list = packed("margin-softmax");
    for page in ["README.md", "CHANGELOG.md"] {
        for link in links(&fs::read_to_string(root().join(page)).unwrap()) {
            let file = link.split('#').next().unwrap();
            let full = link.starts_with("https://") || file.is_empty();
            assert!(full || list.iter().any(|packed| packed == file), "{page} links to {link}, which is not packed");
        }
    }
    let text = "[a](b.md) ![c](d.svg \"e\") <img src=\"f.png\"> <a href=\"g\">h</a>\n[i]: https://j\n";
    assert_eq!(links(text), ["b.md", "d.svg", "f.png", "g", "https://j"]);
}
