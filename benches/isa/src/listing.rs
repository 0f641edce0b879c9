//! The assembly of a kernel as a list of instructions, and what is counted in its loops.

/// The kinds of instructions.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// So many fused multiply-adds of floats.
    Fma(u32),
    /// A product of matrices, which takes so many slots, all of them products.
    Matrix(u32),
    /// Reads workgroup memory.
    WorkgroupRead,
    /// Writes workgroup memory.
    WorkgroupWrite,
    /// Loads so many bits of a buffer.
    Load(u32),
    /// Stores so many bits to a buffer.
    Store(u32),
    /// Waits, and nothing else; no instruction of an element.
    Wait,
    /// Anything else.
    Other,
}

#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    pub kind: Kind,
    /// Takes an issue slot that an FMA could have had.
    pub slot: bool,
    /// The smaller of two integers.
    pub clamp: bool,
    /// Where it may go on instead of the next instruction.
    pub jump: Option<usize>,
}

/// Of a driver's name and what it tells of itself.
pub fn mesa_version(driver: &str) -> &str {
    driver.rsplit_once("Mesa ").map_or("", |(_, version)| version)
}

/// From the first to the last instruction, both inside.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Span {
    first: usize,
    last: usize,
}

impl Span {
    fn holds(self, other: Span) -> bool {
        self != other && self.first <= other.first && other.last <= self.last
    }
}

/// Instructions of a part of a listing; parts that run several times, or in some waves alone, count as often.
#[derive(Clone, Copy, Default, Debug)]
pub struct Mix {
    pub fma: f64,
    /// That take a slot, FMA included.
    pub slots: f64,
    pub workgroup_reads: f64,
    pub clamps: f64,
    pub loads: f64,
    pub load_bits: f64,
    pub store_bits: f64,
    /// All but those that only wait.
    pub instructions: f64,
}

impl Mix {
    fn add(&mut self, part: Mix, times: f64) {
        for (sum, value) in [
            (&mut self.fma, part.fma),
            (&mut self.slots, part.slots),
            (&mut self.workgroup_reads, part.workgroup_reads),
            (&mut self.clamps, part.clamps),
            (&mut self.loads, part.loads),
            (&mut self.load_bits, part.load_bits),
            (&mut self.store_bits, part.store_bits),
            (&mut self.instructions, part.instructions),
        ] {
            *sum += value * times;
        }
    }

    fn of<'a>(part: impl IntoIterator<Item = &'a Instruction>) -> Self {
        let mut mix = Mix::default();
        for one in part {
            mix.clamps += f64::from(u8::from(one.clamp));
            mix.slots += f64::from(u8::from(one.slot));
            mix.instructions += f64::from(u8::from(one.kind != Kind::Wait));
            match one.kind {
                Kind::Fma(count) => mix.fma += f64::from(count),
                Kind::Matrix(slots) => {
                    mix.fma += f64::from(slots);
                    // it is one already
                    mix.slots += f64::from(slots - 1);
                }
                Kind::WorkgroupRead => mix.workgroup_reads += 1.0,
                Kind::Load(bits) => {
                    mix.loads += 1.0;
                    mix.load_bits += f64::from(bits);
                }
                Kind::Store(bits) => mix.store_bits += f64::from(bits),
                Kind::WorkgroupWrite | Kind::Wait | Kind::Other => {}
            }
        }
        mix
    }
}

/// Of a loop's instructions: a larger part of it is the work of the loop, even where it may be jumped over.
const PART: f64 = 1.0 / 3.0;

pub struct Listing(pub Vec<Instruction>);

impl Listing {
    fn mix(&self, span: Span) -> Mix {
        Mix::of(&self.0[span.first..=span.last])
    }

    /// One for each first instruction: to the last jump back to it.
    fn loops(&self) -> Vec<Span> {
        let mut found: Vec<Span> = vec![];
        for (last, one) in self.0.iter().enumerate() {
            let Some(first) = one.jump.filter(|&to| to <= last) else { continue };
            match found.iter_mut().find(|known| known.first == first) {
                Some(known) => known.last = last,
                None => found.push(Span { first, last }),
            }
        }
        found
    }

    /// Small parts of a loop that touch memory and may be jumped over: loads that other waves make.
    fn optional(&self, span: Span) -> Vec<Span> {
        let most = (span.last - span.first + 1) as f64 * PART;
        let mut found: Vec<Span> = vec![];
        for at in span.first..=span.last {
            let Some(to) = self.0[at].jump.filter(|&to| to > at + 1 && to <= span.last + 1) else { continue };
            let part = Span { first: at + 1, last: to - 1 };
            let instructions = &self.0[part.first..=part.last];
            let touches = |one: &Instruction| matches!(one.kind, Kind::Load(_) | Kind::Store(_) | Kind::WorkgroupWrite);
            let apart = found.last().is_none_or(|known| known.last < part.first);
            if apart && instructions.len() as f64 <= most && instructions.iter().any(touches) {
                found.push(part);
            }
        }
        found
    }

    /// A loop of which the optional parts count `share` times.
    fn weighted(&self, span: Span, share: f64) -> Mix {
        let mut mix = self.mix(span);
        for part in self.optional(span) {
            mix.add(self.mix(part), share - 1.0);
        }
        mix
    }

    /// The loop over k of a product and, where that has not all `step` FMA of an invocation in it, the loop in it that has the
    /// rest in several turns.
    fn loops_over_k(&self, step: u32) -> Option<(Span, Option<Span>)> {
        let fma = |span: Span| self.mix(span).fma;
        let loops: Vec<Span> = self.loops().into_iter().filter(|&span| fma(span) >= 4.0).collect();
        let innermost = |span: &Span| !loops.iter().any(|other| span.holds(*other));
        let inner = loops.iter().copied().filter(innermost).max_by(|a, b| fma(*a).total_cmp(&fma(*b)))?;
        let around = loops.iter().copied().filter(|span| span.holds(inner) && fma(inner) < f64::from(step));
        let outer = around.min_by_key(|span| span.last - span.first);
        Some(outer.map_or((inner, None), |outer| (outer, Some(inner))))
    }

    /// The first and the last instruction of the loop over k.
    pub fn loop_over_k(&self, step: u32) -> Option<(usize, usize)> {
        self.loops_over_k(step).map(|(span, _)| (span.first, span.last))
    }

    /// One step of the loop over k of a product, in which an invocation makes `step` FMA; from that follows how often an
    /// inner loop runs. `share`: of the waves that load an operand, where not all load both.
    pub fn product(&self, step: u32, share: f64) -> Option<Mix> {
        let (outer, inner) = self.loops_over_k(step)?;
        let mut mix = self.weighted(outer, share);
        if let Some(inner) = inner {
            let turn = self.mix(inner);
            let turns = ((f64::from(step) - (mix.fma - turn.fma)) / turn.fma).round().max(1.0);
            mix.add(turn, turns - 1.0);
        }
        Some(mix)
    }

    /// Instructions for each element (of 32 bits) that the loops of a kernel go through: stored where they store, else loaded.
    /// Loops that go through fewer elements a turn than another one take what that one leaves.
    pub fn per_element(&self) -> Option<f64> {
        let loops = self.loops();
        let innermost = loops.iter().filter(|span| !loops.iter().any(|other| span.holds(*other)));
        let turns = innermost.map(|&span| self.mix(span));
        let turns = turns.map(|mix| {
            let bits = if mix.store_bits > 0.0 { mix.store_bits } else { mix.load_bits };
            (bits / 32.0, mix.instructions)
        });
        let turns: Vec<(f64, f64)> = turns.filter(|(elements, _)| *elements > 0.0).collect();
        let most = turns.iter().map(|(elements, _)| *elements).fold(0.0, f64::max);
        let whole = turns.iter().filter(|(elements, _)| *elements == most);
        (most > 0.0).then(|| whole.map(|(elements, instructions)| instructions / elements).sum())
    }
}
