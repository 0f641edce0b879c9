// The demo page, as a visitor meets it. Needs web/dist/demo, which `web/serve.sh --build` makes.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

const PATH = 'web/dist/demo/';
/** Compressed wasm and JavaScript of the page, in bytes. */
const MAX = 1_500_000;

export default async function ({ check, browser, url, out, root }) {
    const built = join(root, PATH);
    const shots = process.env.ARTEFACTS ?? out;

    /** The page in a state to test: loaded, paused, on the device that it chose; problems are collected. */
    const open = async ({ init, running = false, ...options } = {}) => {
        if (!existsSync(join(built, 'index.html'))) throw new Error('the demo is not built: run web/serve.sh --build');
        const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, ...options });
        page.setDefaultTimeout(300_000);
        page.problems = [];
        page.foreign = [];
        page.on('console', (m) => ['error', 'warning'].includes(m.type()) && page.problems.push(m.text()));
        page.on('pageerror', (e) => page.problems.push(e.stack));
        page.on('request', (r) => new URL(r.url()).origin !== new URL(url).origin && !r.url().startsWith('data:') && page.foreign.push(r.url()));
        if (init) await page.addInitScript(init);
        if (!running) await page.emulateMedia({ reducedMotion: 'reduce' });
        await page.goto(url + PATH);
        while (!(await page.evaluate(() => globalThis.demo?.panels().length === 2 && demo.panels().every((p) => p.ready)))) {
            assert.deepEqual(page.problems, []);
            await page.waitForTimeout(50);
        }
        return page;
    };
    const kinds = (page) => page.evaluate(() => demo.panels().map((p) => p.run.kind));
    const train = (page, count) => page.evaluate(async (count) => {
        for (let i = 0; i < count; i += 10) await demo.train(Math.min(10, count - i));
        return demo.state.history;
    }, count);
    const tidy = async (page) => {
        assert.deepEqual(page.problems, []);
        assert.deepEqual(page.foreign, [], 'the page works without a network');
        await page.close();
    };
    /** Both losses fell: the mean of the last five steps is below a fifth of the first. */
    const fell = ([steps, ...losses]) => {
        assert.equal(steps.at(-1), steps.length - 1);
        for (const loss of losses) {
            const last = loss.slice(-5).reduce((a, b) => a + b) / 5;
            assert.ok(last < loss[0] / 5, `from ${loss[0]} to ${last}`);
        }
    };

    await check('demo: trains to a lower loss on the GPU', async () => {
        const page = await open({ init: watchProgress });
        assert.deepEqual(await kinds(page), ['gpu', 'gpu']);
        const told = await page.evaluate(() => [...progress]);
        assert.ok(told.some((text) => /^Compiling \d+ of \d+: \w+/.test(text)), `progress was shown: ${told}`);
        assert.match(await page.textContent('#device'), /swiftshader/i);
        fell(await train(page, 60));
        await page.waitForFunction(() => document.querySelectorAll('.figures dd')[4].textContent.endsWith(' ms'));
        await page.waitForTimeout(300);
        await page.screenshot({ path: join(shots, 'demo-light.png'), fullPage: true });
        await tidy(page);
    });

    await check('demo: starts by itself, pauses, steps and starts over', async () => {
        const page = await open({ running: true });
        await page.waitForFunction(() => demo.state.step >= 4);
        await page.click('#run');
        assert.equal(await page.textContent('#run'), 'Start');
        await page.waitForFunction(() => !demo.state.busy);
        const before = await page.evaluate(() => demo.state.step);
        await page.click('#step');
        await page.waitForFunction((before) => demo.state.step === before + 1, before);
        const start = await page.evaluate(async () => {
            const dots = () => [...demo.panels()[1].data.embeddings.slice(0, 3)];
            const moved = dots();
            document.getElementById('reset').click();
            while (demo.state.step !== 0 || demo.state.hold) await new Promise((done) => setTimeout(done, 20));
            return { moved, reset: dots(), other: [...demo.panels()[0].data.embeddings.slice(0, 3)] };
        });
        assert.notDeepEqual(start.moved, start.reset);
        assert.deepEqual(start.reset, start.other, 'both start from the same dots');
        await page.click('#shuffle');
        await page.waitForFunction((old) => demo.panels()[0].data.embeddings[0] !== old, start.reset[0]);
        await tidy(page);
    });

    // Jitter and all: the same numbers are drawn on both sides. The row losses' gradients agree to 1e-5 of their largest, a
    // full step is 0.03 rad, and a step at most doubles what was apart before: 15 · 3e-7 rad after four. Twice that is allowed.
    await check('demo: GPU and CPU move the dots alike, with every loss', async () => {
        const page = await open();
        const found = await page.evaluate(async () => {
            const panel = demo.panels()[0];
            const course = async (name) => {
                panel.choose(name);
                while (!panel.ready || panel.loss !== panel.wanted) await new Promise((done) => setTimeout(done, 5));
                await panel.building;
                await demo.restart();
                const losses = await panel.advance({ count: 4, step: 0, rate: 0.03, jitter: 0.02 });
                return { kind: panel.run.kind, losses: [...losses], dots: [...panel.data.embeddings], discs: [...panel.data.prototypes] };
            };
            const names = [...panel.select.options].map((o) => o.value);
            const all = {};
            for (const name of names) all[name] = [await course(name)];
            document.querySelector('[name=device][value=cpu]').click();
            while (demo.state.hold || !demo.panels().every((p) => p.run?.kind === 'cpu')) await new Promise((done) => setTimeout(done, 20));
            for (const name of names) all[name].push(await course(name));
            return all;
        });
        assert.ok(Object.keys(found).length >= 30);
        const apart = (a, b) => {
            let most = 0;
            for (let i = 0; i < a.length; i += 3) {
                const [u, v] = [a, b].map((all) => all.slice(i, i + 3));
                most = Math.max(most, Math.hypot(...u.map((x, k) => x - v[k])) / Math.hypot(...v));
            }
            return most;
        };
        for (const [name, [gpu, cpu]] of Object.entries(found)) {
            assert.deepEqual([gpu.kind, cpu.kind], ['gpu', 'cpu'], name);
            gpu.losses.forEach((loss, i) => assert.ok(Math.abs(loss - cpu.losses[i]) <= 1e-5 * Math.max(1, Math.abs(loss)), `${name}: ${gpu.losses} and ${cpu.losses}`));
            for (const kind of ['dots', 'discs']) {
                const most = apart(gpu[kind], cpu[kind]);
                // a rounding of a cosine moves dcos(4θ)/dcos, of up to 16, more than a slope near 1; lengths follow there too
                assert.ok(most < (name === 'a_softmax' ? 4e-5 : 1e-5), `${name}: ${kind} are ${most} rad apart`);
            }
        }
        await tidy(page);
    });

    await check('demo: controls change the curves, without new kernels', async () => {
        const page = await open();
        const panel = (what) => page.evaluate(what);
        await page.selectOption('#loss-b', 'chebyaam');
        await page.waitForFunction(() => demo.panels()[1].ready && demo.panels()[1].loss === demo.panels()[1].wanted);
        for (const [path, key] of [['unified.m2', 'ArrowRight'], ['series.degree', 'Home'], ['scale', 'PageDown']]) {
            const input = page.locator(`.of-b .field[data-path$="${path}"] input`);
            await panel(() => Object.assign(globalThis, { old: demo.panels()[1].curve, run: demo.panels()[1].run }));
            await page.waitForTimeout(200);
            const plot = page.locator(path === 'scale' ? '#chart-pull canvas' : '#chart-value canvas');
            if (path === 'scale') await page.selectOption('#gradient', 'pull');
            await page.waitForTimeout(200);
            const picture = await plot.evaluate((c) => c.toDataURL());
            await input.focus();
            await page.keyboard.press(key);
            assert.ok(await panel(() => demo.panels()[1].curve.some((v, i) => v !== old[i])), `${path} changes the curve`);
            await page.waitForTimeout(300);
            assert.notEqual(await plot.evaluate((c) => c.toDataURL()), picture, `${path} changes the chart`);
            assert.ok(await panel(() => demo.panels()[1].run === run), `${path} needs no new kernels`);
        }
        const damping = page.locator('.of-b .field[data-path$="series.damping"] select');
        await panel(() => Object.assign(globalThis, { old: demo.panels()[1].curve }));
        await damping.selectOption({ label: 'Jackson' });
        assert.ok(await panel(() => demo.panels()[1].curve.some((v, i) => v !== old[i])), 'damping changes the curve');
        assert.ok(await panel(() => demo.panels()[1].run === run), 'damping needs no new kernels');
        // only what the loss has
        assert.deepEqual(await page.locator('.of-a .controls > div .field').evaluateAll((all) => all.map((f) => f.dataset.path)), ['scale']);
        // another margin is another loss on the device
        const [before, after] = await panel(async () => {
            const panel = demo.panels()[1];
            const first = async () => (await demo.restart(), (await panel.advance({ count: 1, step: 0, rate: 0, jitter: 0 }))[0]);
            const before = await first();
            const slider = document.querySelector('.of-b .field[data-path$="unified.m2"] input');
            slider.value = 1;
            slider.dispatchEvent(new Event('input'));
            return [before, await first()];
        });
        assert.ok(after > before + 0.1, `a larger margin has a larger loss: ${before}, ${after}`);
        await tidy(page);
    });

    await check('demo: what a loss cannot be is told, and training goes on', async () => {
        const page = await open();
        await page.selectOption('#loss-b', 'arcface_pml');
        await page.click('.of-b summary');
        const factor = page.locator('.of-b .field[data-path$="unified.m1"] input');
        await factor.focus();
        await page.keyboard.press('ArrowRight');
        await page.waitForFunction(() => !document.querySelector('.of-b .refusal').hidden);
        assert.match(await page.textContent('.of-b .refusal'), /sine/);
        await train(page, 2);
        await factor.focus();
        await page.keyboard.press('ArrowLeft');
        await page.waitForFunction(() => document.querySelector('.of-b .refusal').hidden);
        await tidy(page);
    });

    await check('demo: a lost device is made anew once, then the CPU takes over', async () => {
        const page = await open();
        await train(page, 10);
        const lose = () => page.evaluate(() => demo.state.gpu.device.destroy());
        const dots = await page.evaluate(() => [...demo.panels()[0].data.embeddings]);
        await lose();
        await page.waitForFunction(() => /took over/.test(document.querySelector('#notice-gpu')?.textContent) && demo.panels().every((p) => p.ready));
        assert.match(await page.textContent('#notice-gpu'), /GPU was lost .*new device/);
        assert.deepEqual(await kinds(page), ['gpu', 'gpu']);
        assert.deepEqual(await page.evaluate(() => [...demo.panels()[0].data.embeddings]), dots, 'the dots stay');
        await train(page, 10);
        assert.equal(await page.evaluate(() => demo.state.step), 20);
        // the second time while it trains
        await page.click('#run');
        await lose();
        await page.waitForFunction(() => /lost again/.test(document.querySelector('#notice-gpu')?.textContent) && demo.panels().every((p) => p.ready));
        assert.deepEqual(await kinds(page), ['cpu', 'cpu']);
        const step = await page.evaluate(() => demo.state.step);
        await page.waitForFunction((step) => demo.state.step > step + 20, step);
        await tidy(page);
    });

    await check('demo: without WebGPU it says so and trains on the CPU', async () => {
        for (const init of [
            () => Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined }),
            () => (GPU.prototype.requestAdapter = async () => null),
        ]) {
            const page = await open({ init });
            assert.match(await page.textContent('#notices'), /(no WebGPU|No GPU answers).*CPU computes/);
            assert.match(await page.textContent('#device'), /WebAssembly/);
            assert.ok(await page.isDisabled('[name=device][value=gpu]'));
            assert.deepEqual(await kinds(page), ['cpu', 'cpu']);
            fell(await train(page, 100));
            await tidy(page);
        }
    });

    await check('demo: the switch goes to the CPU and back, and the dots stay', async () => {
        const page = await open();
        await train(page, 10);
        for (const [kind, key] of [['cpu', 'ArrowRight'], ['gpu', 'ArrowLeft']]) {
            const before = await page.evaluate(() => [...demo.panels()[1].data.embeddings]);
            await page.locator('[name=device]:checked').focus();
            await page.keyboard.press(key);
            await page.waitForFunction((kind) => !demo.state.hold && demo.panels().every((p) => p.ready && p.run.kind === kind), kind);
            assert.deepEqual(await page.evaluate(() => [...demo.panels()[1].data.embeddings]), before);
            await train(page, 10);
        }
        await tidy(page);
    });

    await check('demo: everything can be reached and worked by keys', async () => {
        const page = await open();
        const wanted = await page.evaluate(() => {
            const all = [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')];
            const reachable = all.filter((e) => !e.disabled && (e.checkVisibility() || e.matches('.skip')) && !(e.type === 'radio' && !e.checked));
            reachable.forEach((e, i) => (e.dataset.stop = i));
            return reachable.length;
        });
        const met = [];
        for (let i = 0; i < wanted; i++) {
            await page.keyboard.press('Tab');
            met.push(await page.evaluate(() => {
                const e = document.activeElement;
                const ring = e.type === 'radio' ? e.nextElementSibling : e;
                const name = e.getAttribute('aria-label') ?? e.labels?.[0]?.textContent ?? e.textContent;
                return { stop: Number(e.dataset.stop), ring: getComputedStyle(ring).outlineStyle, named: name.trim().length > 0, what: e.outerHTML.slice(0, 80) };
            }));
        }
        assert.deepEqual(met.map((m) => m.stop), Array.from({ length: wanted }, (_, i) => i), JSON.stringify(met));
        for (const m of met) {
            assert.notEqual(m.ring, 'none', `focus is seen on ${m.what}`);
            assert.ok(m.named, `${m.what} has a name`);
        }
        const canvas = page.locator('.of-a canvas[role=img]').first();
        await canvas.focus();
        const other = page.locator('.of-b .stage canvas');
        const before = await other.evaluate((c) => c.toDataURL());
        await page.keyboard.press('ArrowLeft');
        await page.keyboard.press('ArrowUp');
        await page.waitForTimeout(200);
        assert.notEqual(await other.evaluate((c) => c.toDataURL()), before, 'both spheres turn');
        await page.keyboard.press('Home');
        await page.waitForTimeout(200);
        assert.equal(await other.evaluate((c) => c.toDataURL()), before, 'and turn back');
        await page.locator('#run').focus();
        await page.keyboard.press('Space');
        await page.waitForFunction(() => demo.state.step > 0);
        await page.keyboard.press('Space');
        assert.equal(await page.evaluate(() => demo.state.running), false);
        await tidy(page);
    });

    await check('demo: text is readable in light and dark, and fits 375 pixels', async () => {
        for (const colorScheme of ['light', 'dark']) {
            for (const width of [1280, 820, 375]) {
                const page = await open({ colorScheme, viewport: { width, height: 800 }, init: () => Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined }) });
                await train(page, 200);
                await page.click('.notes summary');
                for (const summary of await page.locator('.controls summary').all()) await summary.click();
                await page.waitForTimeout(300);
                const pale = await page.evaluate(paleTexts);
                assert.deepEqual(pale, [], `${colorScheme}, ${width}`);
                assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= width, 'no sideways scrolling');
                const cut = await page.evaluate(() => [...document.querySelectorAll('button, dd, dt, output, label, legend, h2')]
                    .filter((e) => e.checkVisibility() && !e.matches('.hidden') && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline').map((e) => e.textContent));
                assert.deepEqual(cut, [], 'nothing is cut off');
                await page.screenshot({ path: join(shots, `demo-${colorScheme}-${width}.png`), fullPage: true });
                await tidy(page);
            }
        }
    });

    await check('demo: the page is small', async () => {
        const files = readdirSync(built, { recursive: true }).filter((file) => /\.(wasm|js)$/.test(file));
        const sizes = files.map((file) => gzipSync(readFileSync(join(built, file)), { level: 9 }).length);
        const sum = sizes.reduce((a, b) => a + b);
        console.log(`        wasm and JavaScript, compressed: ${sum} bytes of ${MAX}`);
        assert.ok(files.some((file) => file.endsWith('.wasm')) && sum < MAX, `${sum} bytes`);
        assert.ok(existsSync(join(built, 'vendor/uPlot.LICENSE')), 'the charts keep their licence');
    });
}

/** Runs in the page before anything else: what the progress display says. */
function watchProgress() {
    globalThis.progress = new Set();
    const look = () => document.querySelectorAll('.veil:not([hidden]) span').forEach((e) => progress.add(e.textContent));
    new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
}

/** Runs in the page: visible texts with a contrast below 4.5 to what is behind them. */
function paleTexts() {
    const numbers = (text) => {
        const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
        return [r, g, b, a];
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((v, i) => v * a + below[i] * (1 - a));
    const light = (rgb) => {
        const [r, g, b] = rgb.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) layers.unshift(numbers(getComputedStyle(e).backgroundColor));
        return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const pale = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let texts = 0;
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('option, script, noscript, .skip, .hidden')) continue;
        texts += 1;
        const back = behind(element);
        const [a, b] = [light(over(numbers(getComputedStyle(element).color), back)), light(back)];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) pale.push(`${walker.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
    }
    if (texts < 50) pale.push(`only ${texts} texts were found`);
    return pale;
}
