//! One step of the CPU path on request, for a caller that times it in turn with something else: see
//! `benches/peers/numpy_head.py`.
//!
//! ```text
//! time_head <rows> <classes> <dim> <budget in MiB> <x.f32> <w.f32> <labels.i64>      raw little-endian files
//! stdin     go                          compute loss and gradients (ArcFace) once
//! stdin     write <dx.f32> <dw.f32>     write the last gradients
//! stdout    <ms> <loss>                 after each go; "ready <backend>" at the start, "written" after a write
//! ```

#[cfg(feature = "cpu")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::{
        io::{BufRead, Write},
        time::Instant,
    };

    use margin_softmax::{Backend, Batch, Budget, MarginSoftmax, Options, Output, Shape};

    let args: Vec<String> = std::env::args().skip(1).collect();
    let [rows, classes, dim, mib, x, w, labels] = &args[..] else {
        return Err("usage: time_head <rows> <classes> <dim> <budget in MiB> <x.f32> <w.f32> <labels.i64>".into());
    };
    let floats = |path: &str| -> std::io::Result<Vec<f32>> {
        let bytes = std::fs::read(path)?;
        Ok(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    };
    let (embeddings, prototypes) = (floats(x)?, floats(w)?);
    let labels: Vec<i64> = std::fs::read(labels)?.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
    let batch = Batch { embeddings: &embeddings, prototypes: &prototypes, labels: &labels, ..Default::default() };

    let backend = Backend::cpu();
    let options = Options { budget: Budget::mib(mib.parse()?), ..Options::default() };
    let shape = Shape::new(rows.parse()?, classes.parse()?, dim.parse()?)?;
    let mut head = backend.head_with(&MarginSoftmax::arcface(), shape, &options)?;
    let mut out = Output::default();
    let mut stdout = std::io::stdout().lock();
    let mut say = |line: String| writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    say(format!("ready {}", backend.name()))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["go"] => {
                let start = Instant::now();
                head.evaluate_into(&batch, &mut out)?;
                say(format!("{} {}", start.elapsed().as_secs_f64() * 1e3, out.loss))?;
            }
            ["write", dx, dw] => {
                for (path, values) in [(dx, &out.grad_embeddings), (dw, &out.grad_prototypes)] {
                    std::fs::write(path, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
                }
                say("written".into())?;
            }
            _ => return Err(format!("`{line}` is neither `go` nor `write <dx> <dw>`").into()),
        }
    }
    Ok(())
}

#[cfg(not(feature = "cpu"))]
fn main() {
    println!("time_head needs the feature `cpu`");
}
