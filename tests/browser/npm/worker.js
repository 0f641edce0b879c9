import { curve, loss } from './work.js';

// vite makes a classic script of this module, which takes no `await` here and no `import()`
Promise.all([curve(), loss()])
    .then(([curve, loss]) => ({ curve, loss }), (error) => ({ failed: error.stack }))
    .then((answer) => postMessage(answer));
