//! Checks the WGSL of a margin, or of other classes, from outside before a driver sees it.

use naga::valid::{Capabilities, ValidationFlags, Validator};

use super::Context;
use crate::{Error, MarginSoftmax, Result, plan::Plan};

/// Parses and validates what is not compiled yet: [`Error::Wgsl`] names the curve and says what is wrong.
pub(super) fn check(context: &Context, loss: &MarginSoftmax, plan: &Plan) -> Result<()> {
    let margin = loss.custom().map(|margin| (margin.name(), margin.wgsl()));
    let others = loss.custom_others().map(|curve| (curve.name(), curve.wgsl()));
    margin.into_iter().chain(others).try_for_each(|(name, wgsl)| check_one(context, name, wgsl, plan))
}

fn check_one(context: &Context, name: &str, wgsl: &str, plan: &Plan) -> Result<()> {
    let refuse = |message: String| Error::Wgsl { margin: name.to_owned(), message };
    for kernel in plan.kernels().iter().filter(|k| k.source.contains(wgsl)) {
        if context.has(kernel) {
            continue;
        }
        let source = &kernel.source;
        let module = naga::front::wgsl::parse_str(source).map_err(|e| refuse(e.emit_to_string(source)))?;
        // what a bare WebGPU device can do; to naga unpack2x16float is a capability
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32);
        validator.validate(&module).map_err(|e| refuse(e.emit_to_string(source)))?;
        if module.entry_points.len() != 1 || module.global_variables.iter().any(|(_, v)| foreign(v, kernel)) {
            return Err(refuse("it must declare neither entry points nor bindings".into()));
        }
    }
    Ok(())
}

/// A binding that the kernel does not have.
fn foreign(variable: &naga::GlobalVariable, kernel: &crate::plan::Kernel) -> bool {
    variable.binding.as_ref().is_some_and(|b| b.group != 0 || b.binding as usize >= kernel.bindings.len() + 2)
}
