// The page and its peers as files that a browser loads.
import { rmSync } from 'node:fs';
import { build } from 'esbuild';

const outdir = new URL('dist', import.meta.url).pathname;
rmSync(outdir, { recursive: true, force: true });
await build({
    entryPoints: [new URL('page.js', import.meta.url).pathname],
    outdir,
    bundle: true,
    splitting: true,
    format: 'esm',
    target: 'es2022',
    minify: true,
    logLevel: 'warning',
});
