//! Every kernel x margin x tile x element loader: validated by naga, translated to MSL and HLSL, built on a device
//! without a driver, and its bindings compared with Rust's. (Its structs: src/uniforms/mod.rs.)
#![cfg(feature = "gpu")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use margin_softmax::{
    data::GradientFilter,
    objective::{Custom, TopK},
    plan::{Binding, Element, Kernel, Layout, Limits, Plan, catalogue::kernels},
    *,
};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

fn parse(name: &str, kernel: &Kernel) -> (naga::Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(&kernel.source)
        .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&kernel.source)));
    // nothing beyond a bare WebGPU device, where unpack2x16float is plain WGSL; to naga it is a capability
    let halves = kernel.source.contains("unpack2x16float");
    let mut capabilities = if halves { Capabilities::SHADER_FLOAT16_IN_FLOAT32 } else { Capabilities::empty() };
    // and the type f16 where the device has it
    capabilities.set(Capabilities::SHADER_FLOAT16, needs_f16(kernel));
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, needs_units(kernel));
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&kernel.source)));
    (module, info)
}

fn needs_f16(kernel: &Kernel) -> bool {
    kernel.source.starts_with("enable f16;")
}

fn needs_units(kernel: &Kernel) -> bool {
    kernel.source.contains("\nenable wgpu_cooperative_matrix;")
}

#[test]
fn every_kernel_is_valid_and_binds_what_its_descriptor_says() {
    let kernels = kernels();
    assert!(kernels.len() > 500, "{} kernels", kernels.len());
    for (name, kernel) in &kernels {
        let (module, _) = parse(name, kernel);
        let entry = &module.entry_points[0];
        assert_eq!((module.entry_points.len(), entry.name.as_str()), (1, kernel.name), "{name}");
        let mut found = vec![None; kernel.bindings.len() + 2];
        for (_, variable) in module.global_variables.iter() {
            let Some(binding) = &variable.binding else { continue };
            assert_eq!(binding.group, 0, "{name}");
            let size = module.types[variable.ty].inner.size(module.to_ctx());
            let slot = found.get_mut(binding.binding as usize).unwrap_or_else(|| panic!("{name}: {binding:?}"));
            assert!(slot.is_none(), "{name}: binding {} twice", binding.binding);
            *slot = Some((variable.space, size));
        }
        for (i, (slot, bytes)) in found.iter().zip(Kernel::UNIFORMS).enumerate() {
            let expected = (naga::AddressSpace::Uniform, bytes as u32);
            assert_eq!(*slot, Some(expected), "{name}: binding {i}");
        }
        for (i, (slot, kind)) in found[2..].iter().zip(&kernel.bindings).enumerate() {
            let (space, _) = slot.unwrap_or_else(|| panic!("{name}: nothing at binding {}", i + 2));
            let access = match kind {
                Binding::Read => naga::StorageAccess::LOAD,
                Binding::Write => naga::StorageAccess::LOAD | naga::StorageAccess::STORE,
            };
            assert_eq!(space, naga::AddressSpace::Storage { access }, "{name}: binding {}", i + 2);
        }
        assert!(kernel.bindings.len() <= 8, "{name}: more storage buffers than WebGPU promises");
    }
}

/// Every text below shaders/, with its path from there.
fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shaders");
    let (mut folders, mut found) = (vec![root.clone()], vec![]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// A shader with an entry point is the kernel of its name, in the catalogue, and every other one is part of a kernel.
#[test]
fn every_shader_is_in_the_catalogue() {
    let kernels = kernels();
    let known: BTreeSet<&str> = kernels.iter().map(|(_, kernel)| kernel.name).collect();
    let mut entries = BTreeSet::new();
    for (path, text) in texts() {
        let (folder, file) = path.split_once('/').unwrap_or_else(|| panic!("{path} lies in no folder"));
        let name = file.strip_suffix(".wgsl").unwrap_or_else(|| panic!("{path} is no shader"));
        if text.contains("@compute") {
            assert!(text.contains(&format!("\nfn {name}(")), "{path}: the entry point has another name");
            assert!(text.starts_with(&format!("// {name}: ")), "{path}: the first line says another name");
            assert!(known.contains(name), "{path}: not in src/plan/catalogue.rs");
            assert!(entries.insert(name.to_owned()), "{path}: the name is used twice");
        } else {
            // the tiles of matrix units, which are a feature
            let units = ["half", "half_x4", "halves", "halves_x4", "matrix_units", "units_2x2", "units_4x4"];
            if cfg!(not(feature = "cooperative_matrix")) && (units.contains(&name) || name.starts_with("tile_coop")) {
                continue;
            }
            // without those where names of operands and bindings are filled in
            let text = code(&text);
            let own = |line: &&str| !line.contains("OPERAND") && !line.contains("BINDING");
            let line = text.lines().filter(own).max_by_key(|line| line.len());
            let line = line.unwrap_or_else(|| panic!("{path} says nothing"));
            let part = |(_, kernel): &(String, Kernel)| kernel.source.contains(line.trim());
            assert!(kernels.iter().any(part), "{folder}/{file}: no kernel in the catalogue has it");
        }
    }
    assert_eq!(entries.iter().map(String::as_str).collect::<BTreeSet<_>>(), known);
}

/// Without its comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect()
}

/// Words and numbers.
fn words(text: &str) -> BTreeSet<String> {
    let inside = |c: char| c.is_ascii_alphanumeric() || "_.~".contains(c);
    // an exponent keeps its sign
    code(text).replace("e-", "e~").split(|c| !inside(c)).map(|word| word.replace('~', "-")).collect()
}

/// The constants of a module that are whole numbers; naga keeps none whose type is abstract.
fn constants(module: &naga::Module) -> BTreeMap<String, f64> {
    let value = |c: &naga::Constant| match module.global_expressions[c.init] {
        naga::Expression::Literal(naga::Literal::U32(v)) => Some(f64::from(v)),
        _ => None,
    };
    module.constants.iter().filter_map(|(_, c)| Some((c.name.clone()?, value(c)?))).collect()
}

/// The numbers that Rust and the shaders share: a line each, before everything else.
fn shared(kernel: &Kernel) -> BTreeMap<String, f64> {
    let number = |line: &str| -> Option<(String, f64)> {
        let line = line.split("//").next()?.trim();
        let (name, value) = line.strip_prefix("const ")?.strip_suffix(';')?.split_once(" = ")?;
        Some((name.to_owned(), value.strip_suffix('u').unwrap_or(value).parse().ok()?))
    };
    kernel.source.lines().map_while(number).collect()
}

/// A number that Rust knows too is declared in Rust (src/uniforms/constants.rs, src/plan/constants.rs). The numbers that a shader
/// declares by itself are listed here with the reason; a new one fails.
#[test]
fn shaders_declare_only_what_rust_does_not_know() {
    let tile = "the geometry of a tile, compared below";
    let layout = "how an operand of this kernel lies";
    let series = "where a function of this file takes its coefficients from";
    let lanes = "the lanes that the kernel's workgroup has, for common/reduce";
    let totals = "which of two parts a kernel has";
    let own = [
        ("auxiliary/center_loss.wgsl", &["LANES"][..], lanes),
        ("auxiliary/center_update.wgsl", &["LANES"], lanes),
        ("auxiliary/mean_direction.wgsl", &["LANES"], lanes),
        ("auxiliary/pair_gradient.wgsl", &["LANES"], lanes),
        ("auxiliary/pair_value.wgsl", &["LANES"], lanes),
        ("common/reduce_twice.wgsl", &["LANES"], lanes),
        ("common/series.wgsl", &["OF_CLOSED", "OF_LOSS", "OF_OTHERS", "OF_ROW"], series),
        ("filter/filter_totals.wgsl", &["LANES"], lanes),
        ("filter/list.wgsl", &["LANES"], lanes),
        ("filter/apply_filter.wgsl", &["LANES"], lanes),
        ("geometry/monitor.wgsl", &["LANES", "NOWHERE"], "the same, and the place of a row that does not count"),
        ("geometry/monitor_mean.wgsl", &["LANES"], lanes),
        ("geometry/monitor_pairs.wgsl", &["A_ALONG_K", "A_NORMALIZED", "B_ALONG_K", "B_NORMALIZED", "LANES"], layout),
        ("head/batch_loss.wgsl", &["SIDE"], lanes),
        ("head/cosines.wgsl", &["A_ALONG_K", "A_NORMALIZED", "B_ALONG_K", "B_NORMALIZED"], layout),
        ("head/finish_embeddings.wgsl", &["SIDE"], lanes),
        ("head/grad_embeddings.wgsl", &["A_ALONG_K", "A_NORMALIZED", "B_ALONG_K"], layout),
        ("head/grad_prototypes.wgsl", &["A_ALONG_K", "A_NORMALIZED", "B_ALONG_K", "B_NORMALIZED"], layout),
        ("head/prototypes_as_they_are.wgsl", &["B_NORMALIZED"], layout),
        ("head/prototypes_normalised.wgsl", &["B_NORMALIZED"], layout),
        ("head/row_stats.wgsl", &["SIDE"], lanes),
        ("head/class_margin_gradients.wgsl", &["LANES"], lanes),
        ("head/sum_margin_gradients.wgsl", &["LANES"], lanes),
        ("head/sum_row_gradients.wgsl", &["LANES"], lanes),
        ("head/totals_known.wgsl", &["TOTALS_KNOWN"], totals),
        ("head/totals_summed.wgsl", &["TOTALS_KNOWN"], totals),
        ("operations/logit_classes.wgsl", &["LANES"], lanes),
        ("tile/block.wgsl", &["PIECE"], "the length of the parts of a sum, within one dispatch"),
        ("tile/direct.wgsl", &["TILE_LANES", "TILE_M", "TILE_N"], tile),
        ("tile/direct_64.wgsl", &["TILE_LANES", "TILE_M", "TILE_N"], tile),
        ("tile/workgroup.wgsl", &["BLOCKS_A", "BLOCKS_B", "QUADS_M", "QUADS_N"], "follows from the tile's size"),
        ("tile/half.wgsl", &["PITCH"], tile),
        ("tile/half_x4.wgsl", &["PITCH", "QUADS_PITCH"], tile),
        ("tile/halves.wgsl", &["PITCH"], tile),
        ("tile/halves_x4.wgsl", &["PITCH", "QUADS_PITCH"], tile),
        ("tile/matrix_units.wgsl", &["QUADS", "SHARES"], "follows from the tile's size"),
        ("tile/tile_coop_16.wgsl", &["TILE_DEPTH", "TILE_LANES", "TILE_M", "TILE_N", "UNIT"], tile),
        ("tile/tile_coop_16_wide.wgsl", &["TILE_DEPTH", "TILE_LANES", "TILE_M", "TILE_N", "UNIT"], tile),
        ("tile/tile_coop_8.wgsl", &["TILE_DEPTH", "TILE_LANES", "TILE_M", "TILE_N", "UNIT"], tile),
        ("tile/tile_coop_8_wide.wgsl", &["TILE_DEPTH", "TILE_LANES", "TILE_M", "TILE_N", "UNIT"], tile),
        ("tile/tile_128.wgsl", &["LANES_M", "LANES_N", "TILE_DEPTH", "TILE_LANES", "TILE_M", "TILE_N"], tile),
        ("tile/tile_32.wgsl", &["LANES_M", "LANES_N", "TILE_DEPTH", "TILE_LANES", "TILE_M", "TILE_N"], tile),
        ("tile/tile_64.wgsl", &["LANES_M", "LANES_N", "TILE_DEPTH", "TILE_LANES", "TILE_M", "TILE_N"], tile),
        ("update_state/update_state.wgsl", &["LANES"], lanes),
    ];
    let mut expected: Vec<(String, String)> = vec![];
    for (file, names, _) in own {
        expected.extend(names.iter().map(|name| (file.to_owned(), name.to_string())));
    }
    let mut found = vec![];
    for (file, text) in texts() {
        let declared = code(&text);
        let names = declared.split("const ").skip(1).filter_map(|rest| rest.split([' ', ':', '=']).next());
        found.extend(names.map(|name| (file.clone(), name.to_owned())));
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

/// No shared number without a shader that reads it, and none that WGSL reads otherwise than Rust wrote it.
#[test]
fn every_shared_number_has_a_reader_and_its_value() {
    let kernels = kernels();
    // one that declares no number of its own
    let (_, plain) = kernels.iter().find(|(_, kernel)| kernel.name == "column_sums").unwrap();
    let shared = shared(plain);
    let whole = constants(&naga::front::wgsl::parse_str(&plain.source).unwrap());
    assert!(whole.iter().all(|(name, value)| shared[name] == *value), "{whole:?}");
    let opening: Vec<&str> = plain.source.lines().take(shared.len()).collect();
    for (name, kernel) in &kernels {
        let lines = kernel.source.lines().skip_while(|line| line.starts_with("enable "));
        assert!(lines.take(opening.len()).eq(opening.iter().copied()), "{name}");
    }
    let used: BTreeSet<String> = texts().iter().flat_map(|(_, text)| words(text)).collect();
    let unused: Vec<&String> = shared.keys().filter(|name| !used.contains(*name)).collect();
    // the fallback that changes nothing is the default of its switch
    assert_eq!(unused, ["NONE"]);
    assert!(shared.len() >= 60 && whole.len() >= 40, "{} numbers", shared.len());
    // by what the crate says elsewhere
    for (name, expected) in [
        ("PI", std::f64::consts::PI),
        ("SHORTEST", objective::SHORTEST),
        ("MAX_BINS", monitor::MAX_BINS as f64),
        ("MAX_TOP_K", TopK::MAX as f64),
        ("MAX_PARAMETERS", Custom::PARAMETERS as f64),
        ("NO_CLASS", f64::from(u32::MAX)),
        ("LOWEST", -3e38),
    ] {
        assert_eq!(shared[name], expected, "{name}");
    }
    // flags are bits of their own
    let flags = "HAS_IGNORE STRAIGHT DETACHED SERIES CLASS_WEIGHTS UPSTREAM UPSTREAM_ROWS MEAN ADD_EMBEDDINGS \
                 ADD_PROTOTYPES DOT_PRODUCT CLASS_MARGINS ROW_MARGINS VARIED CLOSED OWN_SCALE CURRICULAR OTHER_SERIES \
                 OTHER_DETACHED ANGULAR OTHER_ANGULAR WEIGHS SORTED GIVEN";
    let bits: BTreeSet<u32> = flags.split(' ').map(|flag| shared[flag] as u32).collect();
    assert!(bits.len() == 24 && bits.iter().all(|bit| bit.is_power_of_two()), "{bits:?}");
    // the clamps of a device leave what a state may hold, and its ranges of margins are those that a loss may have
    let shape = Shape::new(1, 10, 4).unwrap();
    let state = State::new(&MarginSoftmax::adacos(), shape).unwrap();
    let holds = |hardness: f64, length: f64, scale: f64| {
        let (norm_mean, norm_deviation) = (length, length);
        State { hardness, norm_mean, norm_deviation, scale, ..state }.validate(shape).is_ok()
    };
    let [hardness, smallest, largest] = ["MAX_HARDNESS", "SMALLEST_SCALE", "LARGEST_SCALE"].map(|name| shared[name]);
    assert!(holds(hardness, 0.0, smallest) && holds(-hardness, 1e30, largest));
    assert!(
        !holds(hardness + 1e-5, 0.0, 1.0)
            && !holds(0.0, 1e30_f64.next_up(), 1.0)
            && !holds(0.0, 0.0, largest.next_up())
    );
    let [margin, factor, drawn] = ["MAX_MARGIN", "MAX_FACTOR", "MAX_DRAWN"].map(|name| shared[name]);
    let fits = |m0, m1, m2, m3| MarginSoftmax::unified(m0, m1, m2, m3).validate().is_ok();
    assert!(fits(margin, factor, drawn, margin) && fits(margin, factor, drawn, -margin));
    assert!(!fits(margin.next_up(), 1.0, 0.0, 0.0) && !fits(1.0, factor.next_up(), 0.0, 0.0));
    assert!(!fits(1.0, 1.0, 0.0, margin.next_up()) && !fits(1.0, 1.0, shared["PI"], 0.0));
}

/// A number that is not whole has a name, unless it belongs to a formula or an approximation: then it is here. So no clamp
/// stands in a shader alone.
#[test]
fn numbers_in_shaders_have_names_or_reasons() {
    let formulas = ["0.0", "0.5", "1.0", "1.5", "2.0", "3.0", "4.0"];
    // polynomials and tables of their own
    let approximations = ["common/angle.wgsl", "common/exponential.wgsl", "target/margin_gradient.wgsl"];
    let guard = "a divisor or an argument that is 0 is replaced by something that f32 can hold; the result is not used";
    let own = [
        ("auxiliary/mean_direction.wgsl", "1.0e-30", guard),
        (
            "common/measure.wgsl",
            "1.0e-30",
            "an element this small vanishes when squares are taken: the vector is short",
        ),
        ("common/series.wgsl", "1.0e-20", guard),
        ("head/row_gradient.wgsl", "1.0e-30", "below this a quotient is formed in the other order"),
        ("link/softmax.wgsl", "1.0e-30", guard),
        ("target/unified.wgsl", "1.0e-30", guard),
        ("update_state/row_log_sum_exp.wgsl", "1.0e-30", guard),
    ];
    let mut found = vec![];
    for (file, text) in texts().iter().filter(|(file, _)| !approximations.contains(&file.as_str())) {
        let digit = |word: &String| word.starts_with(|c: char| c.is_ascii_digit()) && !word.starts_with("0x");
        let number = |word: &String| digit(word) && word.contains(['.', 'e']);
        let new = words(text).into_iter().filter(|word| number(word) && !formulas.contains(&word.as_str()));
        found.extend(new.map(|word| (file.clone(), word)));
    }
    found.sort();
    let expected = own.map(|(file, number, _)| (file.to_owned(), number.to_owned()));
    assert_eq!(found, expected);
}

/// The planner's numbers for a tile are those that its text declares.
#[test]
fn tiles_have_the_geometry_that_the_planner_believes() {
    for &tile in Tile::ALL {
        let named = |(name, _): &(String, Kernel)| name.starts_with(&format!("cosines [{} ", tile.name()));
        let (_, kernel) = kernels().into_iter().find(named).unwrap();
        let found = constants(&naga::front::wgsl::parse_str(&kernel.source).unwrap());
        let believed = tile.geometry();
        let expected = [believed.rows, believed.columns, believed.lanes].map(f64::from);
        assert_eq!(["TILE_M", "TILE_N", "TILE_LANES"].map(|name| found[name]), expected, "{}", tile.name());
    }
}

/// The rows of a workgroup, and the prototypes of one whose number depends on them, are as many in the shader's text as in
/// the plan's grid.
#[test]
fn workgroups_cover_what_the_planner_believes() {
    let (rows, classes) = (200, 300);
    let shape = Shape::new(rows, classes, 24).unwrap();
    let mut checked = BTreeSet::new();
    for name in objective::PRESETS.iter().map(|preset| preset.name) {
        for filter in [None, GradientFilter::new(1e-4).ok()] {
            let loss = MarginSoftmax::named(name).unwrap();
            let options = Options { want: Want::ALL.with_scale().with_bias(), filter, ..Options::default() };
            let layout = Layout { shards: &[classes], embeddings: Element::F32, prototypes: Element::F32 };
            // not every loss takes a filter
            let Ok(plan) = Plan::head(&loss, shape, &layout, &Limits::WEBGPU, &options) else { continue };
            let tile_rows = plan.schedule().tile.geometry().rows;
            for step in plan.forward().iter().chain(plan.backward()) {
                let kernel = &plan.kernels()[step.kernel];
                let text = code(&kernel.source);
                let number = |after: &str| -> Option<u32> {
                    let first = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
                    text.split(after).skip(1).find_map(first)
                };
                let name = kernel.name;
                let part = plan.constants()[step.constants];
                match step.grid.rows_per_group {
                    0 => {
                        let Some(covered) = number("group * ").or(number("unfold(id, groups) * ")) else { continue };
                        let expected = u64::from(part.count.div_ceil(covered));
                        assert_eq!(step.grid.groups, expected, "{name}: {covered} prototypes a workgroup");
                    }
                    per_group => {
                        let tile = text.contains("* TILE_M").then_some(tile_rows);
                        let list = text.contains("tile * (PER_LIST").then(|| number("const PER_LIST = ")).flatten();
                        let own = number("unfold(id, groups) * ").or(tile).or(list);
                        let found = own.or(number("block * ")).unwrap_or(1);
                        assert_eq!(found, per_group, "{name}: rows a workgroup");
                    }
                }
                checked.insert(name);
            }
        }
    }
    assert!(checked.len() >= 15, "only {checked:?}");
}

/// A tile's invocations and workgroup memory are what the planner believes; no other kernel needs more than every plan may.
#[test]
fn workgroups_are_as_large_as_the_planner_believes() {
    let least = Limits { workgroup_bytes: 8 << 10, ..Limits::WEBGPU };
    // kernels of 256 lanes have a text for devices that allow 128
    let (mut wide, mut narrow) = (BTreeSet::new(), BTreeSet::new());
    for (name, kernel) in kernels() {
        let (module, _) = parse(&name, &kernel);
        let memory = |(_, v): (_, &naga::GlobalVariable)| match v.space {
            naga::AddressSpace::WorkGroup => module.types[v.ty].inner.size(module.to_ctx()),
            _ => 0,
        };
        let bytes: u32 = module.global_variables.iter().map(memory).sum();
        let lanes: u32 = module.entry_points[0].workgroup_size.iter().product();
        let tile = Tile::ALL.iter().find(|tile| name.contains(&format!("[{} ", tile.name())));
        match tile.map(|tile| tile.geometry()) {
            // beside its own memory there may be a number per invocation
            Some(tile) => assert!(lanes == tile.lanes && bytes - tile.bytes <= 4 * lanes, "{name}: {lanes}, {bytes}"),
            None => {
                // the monitor's histograms need more, and it says so
                let allowed = if kernel.name == "monitor" { 14 << 10 } else { least.workgroup_bytes };
                assert!(lanes <= least.invocations && bytes <= allowed, "{name}: {lanes}, {bytes}");
                if lanes > 128 {
                    wide.insert(kernel.name);
                } else {
                    narrow.insert(kernel.name);
                }
            }
        }
    }
    assert!(wide.len() >= 10 && wide.is_subset(&narrow), "{wide:?} of {narrow:?}");
}

/// The guard for Metal and DX12: translated, not run.
#[test]
fn every_kernel_translates_to_msl_and_hlsl() {
    for (name, kernel) in kernels() {
        let (module, info) = parse(&name, &kernel);
        // matrices came with Metal 2.3
        let default = naga::back::msl::Options::default().lang_version;
        let lang_version = if needs_units(&kernel) { (2, 3) } else { default };
        let options = naga::back::msl::Options { fake_missing_bindings: true, lang_version, ..Default::default() };
        let pipeline = naga::back::msl::PipelineOptions::default();
        let (text, _) = naga::back::msl::write_string(&module, &info, &options, &pipeline)
            .unwrap_or_else(|e| panic!("{name}: MSL: {e}"));
        assert!(text.contains("kernel void"), "{name}");
        // and HLSL has none
        if needs_units(&kernel) {
            assert!(text.contains("simdgroup_multiply_accumulate(d,a,b,c);"), "{name}");
            continue;
        }

        // f16 came with shader model 6.2
        let default = naga::back::hlsl::Options::default().shader_model;
        let shader_model = if needs_f16(&kernel) { naga::back::hlsl::ShaderModel::V6_2 } else { default };
        let options = naga::back::hlsl::Options { fake_missing_bindings: true, shader_model, ..Default::default() };
        let pipeline = naga::back::hlsl::PipelineOptions::default();
        let mut text = String::new();
        naga::back::hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(&module, &info, None)
            .unwrap_or_else(|e| panic!("{name}: HLSL: {e}"));
        assert!(text.contains("numthreads"), "{name}");
    }
}

/// wgpu's own validation of layouts, bindings and limits, with WebGPU's default limits, without a driver.
#[test]
fn every_kernel_builds_on_a_device_without_a_driver() {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    let context = margin_softmax::gpu::Context::from_device(&device, &queue).unwrap();
    assert!(!context.limits().f16);
    for (name, kernel) in kernels().into_iter().filter(|(_, k)| !needs_f16(k)) {
        context.compile(&kernel).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// A downlevel device has four storage buffers per stage; eight are needed.
#[test]
fn a_device_with_too_few_storage_buffers_is_refused() {
    let required_limits = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..Default::default() };
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor { required_limits, ..Default::default() });
    let limit = "max_storage_buffers_per_shader_stage";
    let expected = margin_softmax::Error::Limit { what: "a kernel", limit, needed: 8, allowed: 4 };
    assert_eq!(margin_softmax::gpu::Context::from_device(&device, &queue).err(), Some(expected));
}
