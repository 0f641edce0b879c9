//! Cycles of workgroup memory that the reads of a tile take on NVIDIA, by the addresses of a warp's lanes: a model without a
//! device. The addresses are those of the shader's text.
//!
//! There are 32 banks of 4 bytes. A read of 16 bytes a lane is served 8 lanes at a time, one cycle each where no two of them
//! need different words of the same banks; a warp takes 4. It takes 2 where the lanes T and T^1, or all T and T^2, read the
//! same address (measured by others on real devices, NVIDIA's developer forum, thread 77228).

use crate::expression::{Names, define, value};

const WARP: u32 = 32;
/// Lanes that are served together.
const PHASE: usize = 8;
/// Values of 16 bytes side by side in all banks.
const WIDE: u32 = 8;

/// Cycles of one read of 16 bytes by a warp, from the index of each lane's value.
fn cycles(indices: &[u32]) -> u32 {
    let phase = |lanes: &[u32]| {
        let mut distinct = lanes.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        (0..WIDE).map(|bank| distinct.iter().filter(|index| **index % WIDE == bank).count() as u32).max().unwrap_or(0)
    };
    let phases: Vec<u32> = indices.chunks(PHASE).map(phase).collect();
    let pairs = |apart: usize| (0..indices.len()).all(|lane| indices[lane] == indices[lane ^ apart]);
    if phases.iter().all(|&one| one == 1) && (pairs(1) || pairs(2)) { 2 } else { phases.iter().sum() }
}

/// The text within brackets at the start, and what follows them.
fn brackets(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix('[')?;
    let mut depth = 1;
    let end = rest.find(|c| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        depth == 0
    })?;
    Some((&rest[..end], &rest[end + 1..]))
}

/// The last index of every read of `tile_a` and `tile_b`; the indices before it are the same for all lanes.
fn reads(body: &str) -> Vec<&str> {
    let mut found = vec![];
    for part in body.split("tile_a").skip(1).chain(body.split("tile_b").skip(1)) {
        let (mut rest, mut index) = (part, None);
        while let Some((inside, after)) = brackets(rest) {
            (index, rest) = (Some(inside), after);
        }
        let written = rest.trim_start().starts_with('=') && !rest.trim_start().starts_with("==");
        found.extend(index.filter(|_| !written));
    }
    found
}

/// The text in the braces of a function, without comments.
pub fn body(source: &str, function: &str) -> Option<String> {
    let (_, rest) = source.split_once(&format!("fn {function}("))?;
    let body = rest.split_once("\n}").map_or(rest, |(body, _)| body);
    let code: Vec<&str> = body.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    Some(code.join("\n"))
}

/// Cycles of workgroup memory for each k and warp: those of the reads in `step`, by the x and y of each lane that `tile_run`
/// computes. `None` where a kernel has no tile in workgroup memory.
pub fn of_tile(source: &str) -> Option<Result<u32, String>> {
    let (run, step) = (body(source, "tile_run")?, body(source, "step")?);
    let mut names = Names::new();
    define(source, "const ", &mut names);
    let cycles_of = |read: &str| {
        let index = |lane| {
            let mut names = names.clone();
            names.insert("lane".to_owned(), lane);
            define(&run, "let ", &mut names);
            value(read, &names)
        };
        let indices: Option<Vec<u32>> = (0..WARP).map(index).collect();
        indices.map(|indices| cycles(&indices)).ok_or_else(|| format!("the index `{read}` of a tile is not understood"))
    };
    Some(reads(&step).into_iter().map(cycles_of).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;

    /// Cycles of two reads along m and two along n, as a lane of 8x8 outputs makes for each k.
    fn eight_by_eight(place: fn(u32) -> (u32, u32)) -> u32 {
        let places: Vec<(u32, u32)> = (0..WARP).map(place).collect();
        let (x, y): (Vec<u32>, Vec<u32>) = places.into_iter().unzip();
        2 * (cycles(&x) + cycles(&y))
    }

    #[test]
    fn interleaved_lanes_take_two_thirds_of_the_cycles() {
        assert_eq!(eight_by_eight(|l| (l % 8, l / 8)), 12);
        assert_eq!(eight_by_eight(|l| (l % 16, l / 16)), 12);
        let interleaved = |l: u32| ((l & 1) | ((l >> 1) & 6), ((l >> 1) & 1) | ((l >> 3) & 6));
        assert_eq!(eight_by_eight(interleaved), 8);
    }

    #[test]
    fn words_of_the_same_banks_are_read_one_after_the_other() {
        let lanes = |of: fn(u32) -> u32| cycles(&(0..WARP).map(of).collect::<Vec<u32>>());
        // one address, eight neighbours, and every eighth: 1, 1 and 8 cycles for 8 lanes; the first in pairs
        assert_eq!((lanes(|_| 3), lanes(|l| l), lanes(|l| l * 8)), (2, 4, 32));
    }

    #[test]
    fn a_tile_is_read_from_its_text() {
        let text = "const SIDE = 8u;\nfn step(s: Sums, k: u32, x: u32, y: u32) -> Sums {\n    let a = tile_a[k][y]; // tile_a[k][0]\n\
            \x20   return Sums(outer(s.l, a, tile_b[k][x]), outer(s.r, a, tile_b[k][x + SIDE]));\n}\n\
            fn tile_run(lane: u32) {\n    let x = X;\n    let y = lane / SIDE;\n    tile_a[0][y] = 1;\n}\n";
        assert_eq!(of_tile(&text.replace('X', "lane % SIDE")), Some(Ok(2 + 4 + 4)));
        assert_eq!(of_tile(&text.replace('X', "8u * lane")), Some(Ok(2 + 32 + 32)));
        assert!(of_tile(&text.replace('X', "swizzled(lane)")).unwrap().is_err());
        assert_eq!(of_tile("fn tile_run(lane: u32) {\n}\n"), None);
    }

    /// The kernels' own index formulas. Lanes side by side would take 12 for 8x8 outputs.
    #[test]
    fn tiles_take_no_more_cycles_than_stated() {
        let stated = [("tile_32", 6), ("tile_64", 8), ("tile_64_short", 8), ("tile_128", 12)];
        let mut found = vec![];
        for entry in kernels::all(false).unwrap() {
            let Some(cycles) = of_tile(&entry.kernel.source) else { continue };
            let tile = stated.iter().find(|(tile, _)| entry.name.split(' ').any(|word| word == *tile));
            let (tile, most) = tile.unwrap_or_else(|| panic!("{}: no number of cycles is stated", entry.name));
            let cycles = cycles.unwrap();
            assert!(cycles <= *most, "{}: {cycles} cycles, allowed {most}", entry.name);
            found.push(tile);
        }
        assert!(stated.iter().all(|(tile, _)| found.contains(&tile)), "{found:?}");
    }
}
