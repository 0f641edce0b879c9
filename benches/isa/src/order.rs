//! The order in which the workgroups of `cosines` take the tiles of the product, from the shader's text.

use std::collections::BTreeSet;

use crate::{
    banks::body,
    expression::{Names, define, value},
    kernels,
};

/// First row and first class of the tile of each workgroup, in the order in which they start.
fn tiles(source: &str, rows: u32, classes: u32) -> Option<Vec<(u32, u32)>> {
    let own = body(source, "cosines")?.replace("settings.batch_rows", "ROWS").replace("part.count", "CLASSES");
    let (_, call) = own.split_once("tile_run(")?;
    let mut arguments = call.split(',');
    let (first_row, first_class) = (arguments.next()?, arguments.next()?);
    let mut names = Names::from([("ROWS".to_owned(), rows), ("CLASSES".to_owned(), classes)]);
    define(source, "const ", &mut names);
    let groups = rows.div_ceil(*names.get("TILE_M")?) * classes.div_ceil(*names.get("TILE_N")?);
    let tile = |group| {
        names.insert("group".to_owned(), group);
        define(&own, "let ", &mut names);
        Some((value(first_row, &names)?, value(first_class, &names)?))
    };
    (0..groups).map(tile).collect()
}

/// All of W would be read from memory once for each tile of rows if classes ran fastest.
#[test]
fn the_tiles_of_the_same_classes_follow_one_another() {
    let mut seen = 0;
    for entry in kernels::all(false).unwrap().iter().filter(|entry| entry.kernel.name == "cosines") {
        for (rows, classes) in [(512, 85_742), (256, 5_994), (65, 100)] {
            let tiles = tiles(&entry.kernel.source, rows, classes).unwrap_or_else(|| panic!("{}", entry.name));
            let different: BTreeSet<_> = tiles.iter().collect();
            assert_eq!(different.len(), tiles.len(), "{}: a tile is computed twice", entry.name);
            assert!(tiles.iter().all(|&(row, class)| row < rows && class < classes), "{}: a tile is empty", entry.name);
            // how often the classes change is how often a tile of W is used anew
            let uses = 1 + tiles.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
            let class_tiles: BTreeSet<_> = tiles.iter().map(|tile| tile.1).collect();
            assert_eq!(uses, class_tiles.len(), "{}: other class tiles lie between two uses of one", entry.name);
            seen += 1;
        }
    }
    assert!(seen >= 3 * 6, "{seen}");
}
