//! naga's Metal as CUDA: what differs in the text is rewritten here, the rest are names that `nvidia/metal.h` supplies.

use std::fmt::Write;

use regex_lite::{Captures, Regex};

/// Patterns are constants of this file.
fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The entry point: its invocations and parameters, and the text around its head.
struct Head<'a> {
    lanes: &'a str,
    parameters: &'a str,
    before: &'a str,
    body: &'a str,
}

fn head(text: &str) -> Result<Head<'_>, String> {
    let find = pattern(r"\[\[max_total_threads_per_threadgroup\((\d+)\)\]\] kernel void \w+\(([^{]*)\) \{");
    let found = find.captures(text).ok_or("Metal without an entry point")?;
    let part = |at: usize| found.get(at).map_or("", |part| part.as_str());
    let whole = found.get(0).ok_or("Metal without an entry point")?;
    Ok(Head { lanes: part(1), parameters: part(2), before: &text[..whole.start()], body: &text[whole.end()..] })
}

/// Buffers are references to arrays of one element in Metal; in CUDA they are pointers, or an index above 0 would be undefined.
fn pointers(mut text: String) -> String {
    let array = pattern(r"typedef ([\w:]+) (\w+)\[1\];\n");
    let arrays: Vec<(String, String)> =
        array.captures_iter(&text).map(|found| (found[1].to_owned(), found[2].to_owned())).collect();
    text = array.replace_all(&text, "").into_owned();
    for (element, name) in arrays {
        text = text.replace(&format!("device {name} const& "), &format!("const {element}* __restrict__ "));
        text = text.replace(&format!("device {name}& "), &format!("{element}* __restrict__ "));
    }
    text
}

/// The parameters of the kernel, and the declarations of those that are none in CUDA.
fn parameters(text: &str, body: &mut String) -> Result<(String, String), String> {
    let attribute = pattern(r"\s*\[\[[^\]]*\]\]");
    let (mut kept, mut declared) = (vec![], String::new());
    for parameter in text.split("\n,").map(|one| attribute.replace_all(one.trim(), "").into_owned()) {
        let (kind, name) = parameter.rsplit_once(' ').ok_or_else(|| format!("a parameter `{parameter}`"))?;
        let value = kind.trim_end_matches('&');
        let written = match name {
            "id" => writeln!(declared, "{kind} {name}{{blockIdx.x, blockIdx.y, blockIdx.z}};"),
            "groups" => writeln!(declared, "{kind} {name}{{gridDim.x, gridDim.y, gridDim.z}};"),
            "lane" => writeln!(declared, "{kind} {name} = threadIdx.x;"),
            _ if kind.starts_with("threadgroup ") => {
                let value = value.trim_start_matches("threadgroup ");
                // the driver clears it by its own means
                *body = pattern(&format!(r"\n\s*{name} = \{{\}};")).replace_all(body, "").into_owned();
                writeln!(declared, "__shared__ alignas(16) unsigned char {name}_bytes[sizeof({value})];")
                    .and_then(|()| writeln!(declared, "{value}& {name} = *reinterpret_cast<{value}*>({name}_bytes);"))
            }
            _ if kind.starts_with("constant ") => {
                kept.push(format!("const __grid_constant__ {} {name}", value.trim_start_matches("constant ")));
                Ok(())
            }
            _ => {
                kept.push(parameter);
                Ok(())
            }
        };
        written.map_err(|error| error.to_string())?;
    }
    Ok((kept.join(", "), declared))
}

/// A kernel `entry`, in a namespace of that name.
pub fn translate(metal: &str, entry: &str) -> Result<String, String> {
    let mut text = pattern(r"#include <.*>\n|using metal::uint;\n").replace_all(metal, "").into_owned();
    text = pointers(text);
    text = pattern(r"(?m)^constant (uint|int|bool|float) ").replace_all(&text, "static constexpr $1 ").into_owned();
    text = pattern(r"(?m)^constant (\S+) (\w+) = ").replace_all(&text, "static __device__ const $1 $2 = ").into_owned();
    // 1.0 is a double in C++
    let literal = pattern(r"([^\w.])(\d+\.\d+(?:e[-+]?\d+)?)");
    text = literal.replace_all(&text, |found: &Captures<'_>| format!("{}{}f", &found[1], &found[2])).into_owned();
    text = pattern(r"\.([xyzw]{2,4})\b").replace_all(&text, ".$1()").into_owned();

    let Head { lanes, parameters: listed, before, body } = head(&text)?;
    let mut body = body.to_owned();
    let (kept, declared) = parameters(listed, &mut body)?;
    let function = pattern(r"(?m)^([\w:]+ \w+\()");
    let before = function.replace_all(before, "INLINE $1");
    Ok(format!(
        "namespace metal {{ namespace {entry}_parts {{\n{before}\nextern \"C\" __global__ void __launch_bounds__({lanes}) \
         {entry}({kept}) {{\n{declared}{body}\n}} }}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_become_pointers_and_builtin_values_declarations() {
        let metal = "#include <metal_stdlib>\nusing metal::uint;\ntypedef metal::float4 type_8[1];\nconstant uint SIDE = 8u;\n\n\
            metal::float4 half_of(\n    device type_8 const& data\n) {\n    return data[0] * 0.5;\n}\n\
            [[max_total_threads_per_threadgroup(64)]] kernel void twice(\n  uint lane [[thread_index_in_threadgroup]]\n\
            , threadgroup type_9& shared\n, device type_8& out [[user(fake0)]]\n) {\n    shared = {};\n    out[lane] = 1.0;\n}\n";
        let cuda = translate(metal, "k7").unwrap();
        for part in [
            "static constexpr uint SIDE = 8u;",
            "INLINE metal::float4 half_of(\n    const metal::float4* __restrict__ data\n)",
            "data[0] * 0.5f;",
            "__launch_bounds__(64) k7(metal::float4* __restrict__ out) {",
            "uint lane = threadIdx.x;",
            "type_9& shared = *reinterpret_cast<type_9*>(shared_bytes);",
        ] {
            assert!(cuda.contains(part), "{part} in {cuda}");
        }
        assert!(!cuda.contains("shared = {}") && !cuda.contains("typedef") && !cuda.contains("#include"));
    }
}
