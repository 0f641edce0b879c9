// The charts: uPlot with this page's colours and words.

import uPlot from './vendor/uPlot.esm.js';
import { colour, onTheme } from './theme.js';

const FONT = '12px system-ui, sans-serif';

/** A chart that fills the width of its place and follows the theme. */
class Chart {
    constructor(place, { height, label, x, y, series, plugins = [] }) {
        this.place = place;
        this.label = label;
        place.setAttribute('role', 'img');
        place.setAttribute('aria-label', label);
        const axis = (of) => ({
            font: FONT,
            labelFont: FONT,
            labelSize: 18,
            labelGap: 0,
            stroke: () => colour('--muted'),
            grid: { stroke: () => colour('--grid'), width: 1 },
            ticks: { show: false },
            gap: 6,
            ...of,
        });
        this.plot = new uPlot(
            {
                width: Math.max(place.clientWidth, 200),
                height,
                scales: { x: { time: false, ...x.scale }, y: y.scale },
                axes: [axis({ size: 28, ...x.axis }), axis({ size: 48, ...y.axis })],
                series: [{ label: x.name, value: x.value }, ...series],
                cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
                legend: { live: true, markers: { width: 2 } },
                plugins,
            },
            [[], ...series.map(() => [])],
            place,
        );
        this.height = height;
        new ResizeObserver(() => {
            const width = place.clientWidth;
            if (width && width !== this.plot.width) this.plot.setSize({ width, height: this.height });
        }).observe(place);
        onTheme(() => this.plot.redraw(false));
    }

    set(data) {
        this.plot.setData(data);
    }

    name(series, label) {
        this.plot.series[series].label = label;
        const cell = this.place.querySelectorAll('.u-legend .u-series')[series]?.querySelector('.u-label');
        if (cell) cell.textContent = label;
    }
}

const degrees = { values: (_, all) => all.map((v) => `${v}°`), splits: () => [0, 30, 60, 90, 120, 150, 180], filter: (_, all) => all };
const number = (digits) => (_, v) => (v == null ? '' : v.toFixed(digits));
const line = (name, of) => ({ label: name, stroke: () => colour(`--${of}`), width: 2, points: { show: false }, value: number(3) });
/** B is dashed too, so that colour is not all that tells the two apart. */
const pair = () => [line('A', 'a'), { ...line('B', 'b'), dash: [7, 4] }];

/** Both losses' curves over the angle, with the plain cosine in grey if there is one. */
export function curveChart(place, label, { unit, range, reference }) {
    const grey = { label: reference, stroke: () => colour('--muted'), width: 1, points: { show: false }, value: number(3) };
    return new Chart(place, {
        height: 230,
        label,
        x: { name: 'θ', value: (_, v) => (v == null ? '' : `${v.toFixed(0)}°`), scale: { range: [0, 180] }, axis: { ...degrees, label: 'angle θ to the own prototype' } },
        y: { scale: { range }, axis: { label: unit } },
        series: reference ? [...pair(), grey] : pair(),
    });
}

/** The losses over the steps, logarithmic. */
export function lossChart(place) {
    // whole powers of ten, never a range of nothing
    const range = (_, low, high) => {
        if (low == null || !(high > 0)) return [0.01, 10];
        const [from, to] = [Math.floor(Math.log10(Math.max(low, 1e-9))), Math.ceil(Math.log10(Math.max(high, 1e-8)))];
        return [10 ** from, 10 ** Math.max(to, from + 1)];
    };
    const power = (v) => (v >= 0.01 && v <= 1000 ? String(v) : `1e${Math.round(Math.log10(v))}`);
    return new Chart(place, {
        height: 230,
        label: 'Training loss of both losses over the steps, logarithmic',
        x: { name: 'step', value: (_, v) => v ?? '', scale: {}, axis: { label: 'step', values: (_, all) => all.map((v) => (Number.isInteger(v) ? v.toLocaleString('en') : '')) } },
        y: {
            scale: { distr: 3, range },
            axis: {
                label: 'mean loss of a dot',
                splits: (_, __, low, high) => {
                    const [from, to] = [Math.round(Math.log10(low)), Math.round(Math.log10(high))];
                    const every = Math.ceil((to - from) / 5);
                    return Array.from({ length: Math.floor((to - from) / every) + 1 }, (_, i) => 10 ** (from + i * every));
                },
                values: (_, all) => all.map(power),
                filter: (_, all) => all,
            },
        },
        series: pair().map((s) => ({ ...s, value: (_, v) => (v == null ? '' : v.toPrecision(3)) })),
    });
}

/** How many degrees a bar of a histogram covers. */
const BIN = 5;

/** The angles of one panel's dots: to the own prototype, filled; to the nearest other, outlined. */
export function histogram(place, label, of) {
    const stepped = uPlot.paths.stepped({ align: 1 });
    const bar = (name, stroke, fill) => ({
        label: name,
        stroke: () => colour(stroke),
        fill: fill && (() => colour(fill)),
        width: 1.5,
        paths: stepped,
        points: { show: false },
        value: (_, v) => (v == null ? '' : `${v.toFixed(1)} %`),
    });
    return new Chart(place, {
        height: 170,
        label,
        x: { name: 'angle', value: (_, v) => (v == null ? '' : `${v}–${v + BIN}°`), scale: { range: [0, 180] }, axis: { ...degrees, label: 'angle to the prototype' } },
        y: { scale: { range: (_, __, high) => [0, Math.max(40, Math.ceil((high ?? 0) / 20) * 20)] }, axis: { label: 'dots', values: (_, all) => all.map((v) => `${v} %`) } },
        series: [bar('own class', `--${of}`, `--${of}-soft`), { ...bar('nearest other', '--text'), dash: [3, 2] }],
    });
}

/** Angles in degrees as the histogram's data. */
export function binned(own, other) {
    const edges = Array.from({ length: 180 / BIN + 1 }, (_, i) => i * BIN);
    const shares = (all) => {
        const counts = new Array(edges.length).fill(0);
        for (const angle of all) counts[Math.min(Math.floor(angle / BIN), edges.length - 2)] += 100 / all.length;
        return counts;
    };
    return [edges, shares(own), shares(other)];
}
