// The losses' titles and what can be changed about each. The losses themselves, their numbers and curves come from the library.

const GROUPS = {
    'No margin': { normface: 'NormFace', adacos: 'AdaCos', softmax: 'Softmax (linear)' },
    'Fixed margin': {
        arcface: 'ArcFace',
        arcface_insightface: 'ArcFace (insightface)',
        arcface_pml: 'ArcFace (pytorch-metric-learning)',
        arcface_speaker: 'ArcFace (speakers)',
        cosface: 'CosFace',
        sphereface: 'SphereFace',
        sphereface_raw: 'SphereFace (raw)',
        ampface: 'AmpFace',
        m_softmax: 'M-Softmax (linear)',
    },
    'Chebyshev series': { chebyaam: 'ChebyAAM', chebyaam_fit: 'ChebyAAM (fitted)', arcgrad_series: 'ArcGrad (series)' },
    'Straight in the angle': { arcgrad: 'ArcGrad', li_arcface: 'Li-ArcFace' },
    'Margin by row': {
        adaface: 'AdaFace',
        magface: 'MagFace',
        elasticface_arc: 'ElasticFace-Arc',
        elasticface_arc_plus: 'ElasticFace-Arc+',
        elasticface_cos: 'ElasticFace-Cos',
        elasticface_cos_plus: 'ElasticFace-Cos+',
    },
    'Other classes changed': {
        curricularface: 'CurricularFace',
        arcface_topk: 'ArcFace, hardest classes closer',
        arcface_filter: 'ArcFace, close classes left out',
        ampface_rectified: 'AmpFace with WC-ReLU',
    },
    'One binary problem per class': {
        sphereface2: 'SphereFace2',
        sphereface2_angular: 'SphereFace2 (angular)',
        sphereface2_opensphere: 'SphereFace2 (opensphere)',
    },
};

/** The presets in groups for a picker: `[[group, [[name, title]]]]`. What the library has and this table lacks comes last. */
export function grouped(presets) {
    const left = new Set(presets.map((p) => p.name));
    const groups = Object.entries(GROUPS).map(([group, names]) => [group, Object.entries(names).filter(([name]) => left.delete(name))]);
    if (left.size) groups.push(['Others', [...left].map((name) => [name, name])]);
    return groups.filter(([, names]) => names.length);
}

/** The title of a preset. */
export function title(name) {
    for (const names of Object.values(GROUPS)) if (names[name]) return names[name];
    return name;
}

// `neutral` is the value at which a margin does nothing: it is then kept under "More".
const CONTROLS = [
    { label: 'Amplitude m₀', paths: ['target.unified.m0'], min: 0.05, max: 1.5, step: 0.05, neutral: 1 },
    { label: 'Angle factor m₁', paths: ['target.unified.m1'], min: 1, max: 4, step: 0.05, neutral: 1, bent: true },
    { label: 'Angle margin m₂', paths: ['target.unified.m2'], min: 0, max: 1.5, step: 0.01, unit: 'rad', neutral: 0, bent: true },
    { label: 'Cosine margin m₃', paths: ['target.unified.m3'], min: 0, max: 1, step: 0.01, neutral: 0 },
    { label: 'Angle margin', paths: ['target.angle.margin'], min: 0, max: 1.5, step: 0.01, unit: 'rad', neutral: 0 },
    { label: 'Margin', paths: ['target.power.margin', 'others.power.margin'], min: 0, max: 1, step: 0.01 },
    { label: 'Exponent t', paths: ['target.power.exponent', 'others.power.exponent'], min: 1, max: 10, step: 1 },
    { label: 'Weight of the own class', paths: ['link.binary.weight'], min: 0.05, max: 0.95, step: 0.05 },
    { label: 'Margin', paths: ['adaptive.adaface.margin'], min: 0, max: 1, step: 0.01 },
    { label: 'Margin of short ones', paths: ['adaptive.magface.lower_margin'], min: 0, max: 0.8, step: 0.01, unit: 'rad' },
    { label: 'Margin of long ones', paths: ['adaptive.magface.upper_margin'], min: 0, max: 1.5, step: 0.01, unit: 'rad' },
    { label: 'Spread of the margin', paths: ['adaptive.elastic.deviation'], min: 0, max: 0.3, step: 0.0025 },
    { label: 'Hardest classes', paths: ['others.top_k.count'], min: 1, max: 7, step: 1 },
    { label: 'Closer by', paths: ['others.top_k.margin'], min: 0, max: 0.5, step: 0.01, unit: 'rad' },
    { label: 'Left out above cos θ', paths: ['others.filter.threshold'], min: 0.05, max: 1, step: 0.05 },
    {
        label: 'Chebyshev degree',
        paths: ['target.unified.curve.series.degree', 'target.angle.curve.series.degree', 'others.angle.curve.series.degree'],
        min: 1, max: 64, step: 1,
    },
    {
        label: 'Damping',
        paths: ['target.unified.curve.series.damping', 'target.angle.curve.series.damping', 'others.angle.curve.series.damping'],
        choices: [['none', 'none'], ['jackson', 'Jackson'], ['lanczos', 'Lanczos']],
    },
    { label: 'Scale s', paths: ['scale'], min: 1, max: 128, step: 1 },
    {
        label: 'Past 180°', paths: ['target.unified.fallback'], more: true, bent: true,
        choices: [
            ['continuous', 'on with slope 1'], ['sine', 'shifted cosine'], ['mirror', 'monotone (ψ)'], ['none', 'turns up again'],
            [{ clip: 0.001 }, 'angle clipped'], ['easy', 'only below 90°'],
        ],
    },
    {
        label: 'Backward slope', paths: ['target.unified.slope', 'target.power.slope'], more: true,
        choices: [['analytic', 'of the curve'], ['detached', '1 everywhere']],
    },
];

const read = (loss, path) => path.split('.').reduce((at, key) => at?.[key], loss);

/** The controls that a loss has, as `{label, paths, value, more, ..}`. */
export function controls(loss) {
    const linear = loss.product === 'linear';
    const given = loss.adaptive?.adaface ? ['m2', 'm3'] : loss.adaptive?.magface ? ['m2'] : [];
    return CONTROLS.map((c) => ({ ...c, paths: c.paths.filter((path) => read(loss, path) !== undefined) }))
        .filter((c) => c.paths.length)
        .filter((c) => !(linear && (c.bent || c.choices)))
        .filter((c) => !given.some((m) => c.paths[0] === `target.unified.${m}`))
        .filter((c) => !(c.paths[0] === 'scale' && loss.adaptive === 'adacos'))
        .map((c) => {
            const value = read(loss, c.paths[0]);
            return { ...c, value, more: c.more ?? value === c.neutral };
        });
}

/** A copy of the loss with one control set. */
export function changed(loss, control, value) {
    const copy = structuredClone(loss);
    for (const path of control.paths) {
        const keys = path.split('.');
        const last = keys.pop();
        keys.reduce((at, key) => at[key], copy)[last] = value;
    }
    return copy;
}

/** A control's value as text, with its unit. */
export function shown(control, value) {
    const text = Number.isInteger(control.step) ? String(value) : value.toFixed(control.step < 0.01 ? 4 : 2);
    return control.unit === 'rad' ? `${text} rad (${((value * 180) / Math.PI).toFixed(0)}°)` : text;
}
