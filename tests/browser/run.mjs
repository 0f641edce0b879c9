// Runs the browser tests in headless Chromium:
//
//     node tests/browser/run.mjs [part of a test's name]
//
// Every suite is a module beside this one that exports `default async ({ page, check, url, out }) => …`:
//
//     page(path, options) opens a page of this repository, or of another address; its errors are in page.problems, and fail the
//                         test that meets them
//     check(name, test)   one test; what it throws is its failure
//     out                 a folder for what should be kept, such as screenshots
//
// Chromium runs WebGPU in software (SwiftShader), so that a machine without a GPU has an adapter; none is a failure.

import { createReadStream, existsSync, mkdirSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const SUITES = ['parity', 'module', 'companions', 'targets', 'demo', 'npm', 'threads'];
const MINUTES = 20;

const root = fileURLToPath(new URL('../..', import.meta.url));
const out = join(root, 'out/browser');
mkdirSync(out, { recursive: true });

const types = {
    '.html': 'text/html; charset=utf-8',
    '.js': 'text/javascript',
    '.mjs': 'text/javascript',
    '.css': 'text/css',
    '.json': 'application/json',
    '.wasm': 'application/wasm',
    '.svg': 'image/svg+xml',
    '.png': 'image/png',
};

/** The repository as static files, with the headers that wasm threads need. */
const serve = () =>
    new Promise((resolve) => {
        const server = createServer((request, response) => {
            const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
            let file = join(root, path);
            if (file.endsWith('/')) file += 'index.html';
            if (!file.startsWith(root) || !existsSync(file) || !statSync(file).isFile()) {
                response.writeHead(404).end(`no file ${path}`);
                return;
            }
            response.writeHead(200, {
                'Content-Type': types[extname(file)] ?? 'application/octet-stream',
                'Cross-Origin-Opener-Policy': 'same-origin',
                'Cross-Origin-Embedder-Policy': 'require-corp',
                'Cache-Control': 'no-store',
            });
            createReadStream(file).pipe(response);
        });
        server.listen(0, '127.0.0.1', () => resolve(server));
    });

const executable = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const server = await serve();
const url = `http://127.0.0.1:${server.address().port}/`;
const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? executable,
    headless: false, // the old headless mode of playwright's; the new one is the flag
    args: ['--headless=new', '--no-sandbox', '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'],
});

let passed = 0;
let failed = 0;
const filter = process.argv[2] ?? '';

const check = async (name, test) => {
    if (!name.includes(filter)) return;
    const start = performance.now();
    const seconds = () => `${((performance.now() - start) / 1000).toFixed(1)} s`;
    try {
        await test();
        passed += 1;
        console.log(`ok      ${name} (${seconds()})`);
    } catch (error) {
        failed += 1;
        console.log(`FAILED  ${name} (${seconds()})\n        ${error.stack ?? error}`);
    }
};

/** A page of this repository, or of another address. */
const page = async (path = 'tests/browser/page.html', options = {}) => {
    const made = await browser.newPage(options);
    made.setDefaultTimeout(MINUTES * 60_000);
    made.problems = [];
    made.on('console', (message) => {
        if (message.type() === 'error') made.problems.push(message.text());
    });
    made.on('pageerror', (error) => made.problems.push(error.message));
    await made.goto(new URL(path, url).href);
    return made;
};

const timer = setTimeout(() => {
    console.log(`FAILED  no answer within ${MINUTES} minutes`);
    process.exit(1);
}, MINUTES * 60_000);

for (const suite of SUITES) {
    const file = new URL(`./${suite}.mjs`, import.meta.url);
    if (!existsSync(file)) continue;
    const { default: run } = await import(file);
    try {
        await run({ page, check, url, out, root, browser });
    } catch (error) {
        failed += 1;
        console.log(`FAILED  ${suite}: ${error.stack ?? error}`);
    }
}
clearTimeout(timer);
await browser.close();
server.close();
if (passed === 0 && failed === 0) {
    console.log(`FAILED  no test is called ${filter}`);
    failed = 1;
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
