// The npm package, as users install it: packed, installed into a project of its own (the files of tests/browser/npm), built
// by each bundler with its defaults, served, and run in a page and in a module worker.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import * as esbuild from 'esbuild';
import * as vite from 'vite';
import webpack from 'webpack';
import { server } from '../../web/demo/serve.mjs';

const run = promisify(execFile);
const NAME = 'margin-softmax';
const FILES = [
    'LICENSE-APACHE',
    'LICENSE-MIT',
    'README.md',
    'dist/planner.js',
    'dist/planner_bg.wasm',
    'dist/planner_wasm.js',
    'margin-softmax.d.ts',
    'margin-softmax.js',
    'module/auxiliary.js',
    'module/batch_report.js',
    'module/bound.js',
    'module/buffers.js',
    'module/companions.d.ts',
    'module/compiled.js',
    'module/data.d.ts',
    'module/device.js',
    'module/errors.js',
    'module/head.js',
    'module/inputs.js',
    'module/monitor.js',
    'module/planner.js',
    'module/predictions.js',
    'module/predictor.js',
    'module/report.js',
    'module/schedules.js',
    'module/slices.js',
    'module/state.js',
    'module/transfer.js',
    'package.json',
];

/** Equal vectors have cosine 1, so CosFace's loss is log(1 + 2·exp(s·m3)) with s = 64, m3 = 0.35. */
const LOSS = Math.log1p(2 * Math.exp(64 * 0.35));
const VALUES = [-0.5 - 0.35, 0.25 - 0.35];

/** Each builds the project in a folder, and returns the folder to serve. */
const builds = {
    'vite, production': async (root) => {
        await vite.build({ root, configFile: false, logLevel: 'warn' });
        return join(root, 'dist');
    },
    'webpack, production': async (root) => {
        const settings = { context: root, entry: './main.js', mode: 'production', output: { path: join(root, 'dist') } };
        // its hint about assets above 244 KiB counts them before compression
        const stats = await promisify(webpack)({ ...settings, performance: { hints: false } });
        const { errors, warnings } = stats.toJson({ all: false, errors: true, warnings: true });
        assert.deepEqual([...errors, ...warnings].map(({ message }) => message), []);
        cpSync(join(root, 'index.html'), join(root, 'dist/index.html'));
        return join(root, 'dist');
    },
    esbuild: async (root) => {
        // it follows imports, but no workers: a second entry
        const entryPoints = ['main.js', 'worker.js'].map((file) => join(root, file));
        const settings = { bundle: true, format: 'esm', minify: true, logLevel: 'silent', outdir: join(root, 'dist') };
        const { warnings } = await esbuild.build({ entryPoints, ...settings });
        assert.deepEqual(warnings, []);
        cpSync(join(root, 'index.html'), join(root, 'dist/index.html'));
        return join(root, 'dist');
    },
    unbundled: async (root) => {
        // a page names files; an import map would not reach the worker
        const file = join(root, 'work.js');
        const text = readFileSync(file, 'utf8');
        writeFileSync(file, text.replace(`'${NAME}'`, `'/node_modules/${NAME}/${NAME}.js'`));
        return root;
    },
};

export default async ({ page, check, root }) => {
    const temporary = mkdtempSync(join(tmpdir(), `${NAME}-`));
    const first = join(temporary, 'node');
    let installed;
    /** A project with the package installed from its tarball. */
    const project = async (name) => {
        installed ??= (async () => {
            cpSync(join(root, 'tests/browser/npm'), first, { recursive: true });
            await run('npm', ['pack', join(root, 'web'), '--pack-destination', temporary]);
            const [tarball] = readdirSync(temporary).filter((file) => file.endsWith('.tgz'));
            await run('npm', ['install', '--offline', '--no-audit', '--no-fund', `../${tarball}`], { cwd: first });
        })();
        await installed;
        const folder = join(temporary, name.replace(/\W+/g, '-'));
        if (folder !== first) cpSync(first, folder, { recursive: true });
        return folder;
    };

    /** Opens the page of a project: what the page and its worker compute must be right. */
    const open = async (address) => {
        const own = await page(address);
        // a page that does not run says why
        await own.waitForFunction(() => globalThis.found, undefined, { timeout: 60_000 }).catch(({ message }) => own.problems.push(message));
        assert.deepEqual(own.problems, []);
        const { page: curve, worker } = await own.evaluate(() => globalThis.found);
        assert.deepEqual({ curve, failed: worker.failed }, { curve: VALUES, failed: undefined });
        assert.deepEqual(worker.curve, VALUES);
        assert.ok(Math.abs(worker.loss - LOSS) <= 1e-5 * LOSS, `loss ${worker.loss}, expected ${LOSS}`);
        await own.close();
    };

    try {
        await check('npm: the package holds its files and the version of the crate', async () => {
            const folder = join(await project('node'), 'node_modules', NAME);
            const files = readdirSync(folder, { recursive: true }).filter((file) => statSync(join(folder, file)).isFile());
            assert.deepEqual(files.sort(), FILES);
            const crate = /^version = "(.*)"/m.exec(readFileSync(join(root, 'Cargo.toml'), 'utf8'))[1];
            assert.equal(JSON.parse(readFileSync(join(folder, 'package.json'))).version, crate);
        });

        for (const how of ['alone', 'bytes']) {
            await check(`npm: Node, ${how}`, async () => {
                const { stdout } = await run('node', ['node.js', how], { cwd: await project('node') });
                const { errors, values } = JSON.parse(stdout);
                assert.deepEqual(values, [VALUES, VALUES]);
                assert.match(errors[0], /^Name: `wasn` is not a known setting/);
                assert.match(errors[1], /^Format: the planner's wasm does not start: .*; `wasm` is its bytes/s);
                assert.match(errors[2], /^Format: .*; `wasm` is its bytes/s);
            });
        }

        for (const module of ['preserve', 'nodenext']) {
            await check(`npm: types for the module setting ${module}`, async () => {
                const tsc = join(root, 'tests/browser/node_modules/.bin/tsc');
                const settings = ['--noEmit', '--strict', '--checkJs', '--target', 'es2022', '--lib', 'es2022,dom', '--types', ''];
                const checked = run(tsc, [...settings, '--module', module, 'work.js'], { cwd: await project('node') });
                await checked.catch(({ stdout }) => assert.fail(stdout));
            });
        }

        for (const [name, build] of Object.entries(builds)) {
            await check(`npm: ${name}`, async () => {
                const served = server(await build(await project(name)));
                await new Promise((listening) => served.listen(0, '127.0.0.1', listening));
                await open(`http://127.0.0.1:${served.address().port}/`);
                served.closeAllConnections();
                served.close();
            });
        }

        await check('npm: vite, development', async () => {
            const settings = { configFile: false, logLevel: 'warn', server: { host: '127.0.0.1', port: 0 } };
            const served = await vite.createServer({ root: await project('development'), ...settings });
            await served.listen();
            await open(served.resolvedUrls.local[0]);
            await served.close();
        });
    } finally {
        rmSync(temporary, { recursive: true });
    }
};
