// Serves a folder on 127.0.0.1: node serve.mjs FOLDER [PORT]. The headers let a page use threads and exact clocks.

import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, resolve, sep } from 'node:path';

const TYPES = {
    '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8',
    '.wasm': 'application/wasm', '.wgsl': 'text/plain; charset=utf-8', '.json': 'application/json',
};

/** A server for the files below `folder`, not listening yet. */
export function server(folder) {
    const root = resolve(folder);
    return createServer((request, response) => {
        const answer = (status, headers = {}) => response.writeHead(status, {
            'Cross-Origin-Opener-Policy': 'same-origin',
            'Cross-Origin-Embedder-Policy': 'require-corp',
            'Cache-Control': 'no-store',
            ...headers,
        });
        let file;
        try {
            file = join(root, decodeURIComponent(new URL(request.url, 'http://localhost').pathname));
            if (file !== root && !file.startsWith(root + sep)) throw new Error('outside');
            if (statSync(file).isDirectory()) file = join(file, 'index.html');
            const { size } = statSync(file);
            answer(200, { 'Content-Type': TYPES[extname(file)] ?? 'text/plain; charset=utf-8', 'Content-Length': size });
        } catch {
            answer(404).end('not found');
            return;
        }
        if (request.method === 'HEAD') response.end();
        else createReadStream(file).on('error', () => response.destroy()).pipe(response);
    });
}

if (process.argv[1] && resolve(process.argv[1]) === import.meta.filename) {
    const [folder, port = '8080'] = process.argv.slice(2);
    const made = server(folder);
    made.on('error', (error) => {
        console.error(error.code === 'EADDRINUSE' ? `Port ${port} is in use: name another one.` : error.message);
        process.exit(1);
    });
    made.listen(Number(port), '127.0.0.1', () => console.log(`http://127.0.0.1:${made.address().port}/  (Ctrl-C ends it)`));
}
