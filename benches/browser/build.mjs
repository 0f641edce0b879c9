// The page and its peers as files that a browser loads.
import { build } from 'esbuild';

await build({
    entryPoints: [new URL('page.js', import.meta.url).pathname],
    outdir: new URL('dist', import.meta.url).pathname,
    bundle: true,
    splitting: true,
    format: 'esm',
    target: 'es2022',
    minify: true,
    logLevel: 'warning',
});
