//! Intel: the assembly that Mesa's ANV prints for a chip that is not there.

use crate::{
    driver::Compiled,
    kernels::Entry,
    listing::{Instruction, Kind, Listing, mesa_version},
    table::Row,
};

/// Bits of an access by its message: `d32, xyz` or `d32, V4`; on older chips a mask of the components that are left out.
fn bits(message: &str) -> u32 {
    let word = if message.contains("d16") || message.contains("16-bit") { 16 } else { 32 };
    if let Some((_, rest)) = message.split_once("Mask = 0x") {
        let mask = rest.bytes().next().and_then(|digit| char::from(digit).to_digit(16)).unwrap_or(0);
        return word * (4 - mask.count_ones());
    }
    let components = message.split([',', ' ']).find_map(|part| {
        let number = part.strip_prefix('V').and_then(|number| number.parse().ok());
        number.or((!part.is_empty() && "xyzw".starts_with(part)).then_some(part.len() as u32))
    });
    word * components.unwrap_or(1)
}

/// A message to memory. Scratch, and the blocks of uniform values, are neither loads nor stores of the kernel.
fn message(text: &str) -> Kind {
    let reads = [" load", " read"].iter().any(|word| text.contains(word));
    let writes = [" store", " write"].iter().any(|word| text.contains(word));
    let shared = text.starts_with("slm") || text.contains("Surface = 254");
    let buffer = (text.starts_with("ugm") && text.contains(" bti ")
        || text.contains("Surface = ")
        || text.contains("scattered"))
        && !text.contains("transpose");
    match (shared, buffer) {
        (true, _) if reads => Kind::WorkgroupRead,
        (true, _) if writes => Kind::WorkgroupWrite,
        (false, true) if reads => Kind::Load(bits(text)),
        (false, true) if writes => Kind::Store(bits(text)),
        _ => Kind::Other,
    }
}

/// `next`: the line below, which describes the message of a `send`.
fn instruction(line: &str, next: &str) -> Option<Instruction> {
    // `(+f0.0) sel(8) ..`: under a condition
    let line = if line.starts_with('(') { line.split_once(' ')?.1.trim_start() } else { line };
    let (name, rest) = line.split_once('(').filter(|(name, _)| !name.is_empty() && !name.contains(':'))?;
    let next = next.trim_start();
    let kind = match name {
        "mad" if rest.contains("<1>F") => Kind::Fma(1),
        "send" | "sends" | "sendc" => message(next),
        _ if name.starts_with("sync") => Kind::Wait,
        _ => Kind::Other,
    };
    let clamp = name == "sel.l" && rest.contains("<1>UD");
    Some(Instruction { kind, slot: kind != Kind::Wait, clamp, jump: None })
}

fn listing(assembly: &str) -> Listing {
    let lines: Vec<&str> = assembly.lines().collect();
    let mut labels = vec![];
    let mut found: Vec<(&str, Instruction)> = vec![];
    for (number, line) in lines.iter().enumerate() {
        if let Some(label) = line.strip_suffix(':').filter(|label| label.starts_with("LABEL")) {
            labels.push((label, found.len()));
        } else if let Some(one) = instruction(line, lines.get(number + 1).unwrap_or(&"")) {
            found.push((line, one));
        }
    }
    let jump = |line: &str| {
        let target = line.split_once("JIP:")?.1.split_whitespace().next()?;
        labels.iter().find(|(label, _)| *label == target).map(|(_, at)| *at)
    };
    Listing(found.iter().map(|&(line, one)| Instruction { jump: jump(line), ..one }).collect())
}

/// The chip and the version: `Intel A770, Mesa 22.3.6` of `Intel(R) Arc(tm) A770 Graphics (DG2), Intel open-source Mesa driver Mesa 22.3.6`.
pub fn compiler(driver: &str) -> String {
    format!("{}, Mesa {}", driver.split(", ").next().unwrap_or(driver), mesa_version(driver))
}

pub fn row(entry: &Entry, compiled: &Compiled, path: Option<&Compiled>) -> Result<Row, String> {
    let path = path.map(|path| listing(&path.assembly));
    Ok(Row {
        // newer versions tell
        registers: compiled.statistic("Max live registers").ok(),
        waves: Some(compiled.subgroup.into()),
        spills: Some(compiled.statistic("Spill Count")?),
        scratch: Some(compiled.statistic("Scratch Memory Size")?),
        ..Row::of(entry, &listing(&compiled.assembly), path.as_ref(), compiled.subgroup)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_counted_by_what_its_instructions_do() {
        let text = "LABEL1:\ncmp.ge.f0.0(8)  null<1>UD       g21<8,8,1>UD    0x00000800UD    { align1 1Q I@1 };\n\
            (+f0.0) break(8) JIP:  LABEL0        UIP:  LABEL0              { align1 1Q };\n\
            sel.l(8)        g3<1>UD         g2<8,8,1>UD     63UD            { align1 1Q };\n\
            sync nop(1)                     null<0,1,0>UB                   { align1 WE_all 1N I@1 };\n\
            send(8)         g25UD           g29UD           nullUD          0x62307502                0x00000000\n\
            \x20   slm MsgDesc: ( load_cmask, a32, d32, xyzw, L1STATE_L3MOCS dst_len = 4, src0_len = 1 flat )\n\
            send(8)         g25UD           g29UD           nullUD          0x62307502                0x00000000\n\
            \x20   ugm MsgDesc: ( load_cmask, a32, d32, xy, L1STATE_L3MOCS dst_len = 2, src0_len = 1, src1_len = 0 bti ) BTI 6\n\
            send(8)         g25UD           g29UD           nullUD          0x62307502                0x00000000\n\
            \x20   ugm MsgDesc: ( store, a32, d32, V1, L1STATE_L3MOCS dst_len = 0, src1_len = 1 ss ) surface_state_index 0\n\
            mad(8)          g3<1>F          g3<1,1,1>F      g4<1,1,1>F      g5<0,1,0>F { align1 1Q };\n\
            mad(8)          g3<1>F          g3<1,1,1>F      g4<1,1,1>F      g6<0,1,0>F { align1 1Q };\n\
            mad(8)          g3<1>F          g3<1,1,1>F      g4<1,1,1>F      g7<0,1,0>F { align1 1Q };\n\
            mad(8)          g3<1>F          g3<1,1,1>F      g4<1,1,1>F      g8<0,1,0>F { align1 1Q };\n\
            \nLABEL0:\nwhile(8)        JIP:  LABEL1                                    { align1 1Q };\n";
        let mix = listing(text).product(4, 1.0).unwrap();
        assert_eq!((mix.fma, mix.slots, mix.workgroup_reads, mix.clamps), (4.0, 11.0, 1.0, 1.0));
        assert_eq!((mix.loads, mix.load_bits, mix.store_bits), (1.0, 64.0, 0.0));
        assert_eq!(
            message("ugm MsgDesc: ( load, a32, d32, V4, L1STATE_L3MOCS dst_len = 4, src0_len = 1 bti ) BTI 6"),
            Kind::Load(128)
        );
        let older = "dp data 1 MsgDesc: (untyped surface read, Surface = 8, SIMD8, Mask = 0xc) mlen 1 ex_mlen 0 rlen 2";
        assert_eq!(message(older), Kind::Load(64));
        assert_eq!(message("data MsgDesc: (DC OWORD block write, bti 253, owords = 2, aligned = 0)"), Kind::Other);
    }
}
