// A sphere with dots on a 2D canvas, turned by dragging or by the arrow keys.

import { CLASSES, DIM, ROWS } from './motion.js';
import { colour } from './theme.js';

/** Where the viewer stands, shared by all spheres. */
export class View {
    constructor() {
        this.listeners = [];
        this.home();
    }

    home() {
        [this.yaw, this.pitch] = [0.5, 0.35];
        this.changed();
    }

    turn(yaw, pitch) {
        this.yaw += yaw;
        this.pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, this.pitch + pitch));
        this.changed();
    }

    changed() {
        for (const listener of this.listeners) listener();
    }
}

const KEYS = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] };

export class Sphere {
    constructor(canvas, view) {
        Object.assign(this, { canvas, view, data: null, right: null });
        this.dirty = true;
        view.listeners.push(() => (this.dirty = true));
        new ResizeObserver(() => (this.dirty = true)).observe(canvas);
        canvas.addEventListener('keydown', (event) => {
            if (event.key in KEYS) view.turn(...KEYS[event.key]);
            else if (event.key === 'Home') view.home();
            else return;
            event.preventDefault();
        });
        canvas.addEventListener('pointerdown', (event) => {
            canvas.setPointerCapture(event.pointerId);
            this.last = [event.clientX, event.clientY];
        });
        canvas.addEventListener('pointermove', (event) => {
            if (!this.last) return;
            const speed = 2 / canvas.clientWidth;
            view.turn((event.clientX - this.last[0]) * speed, (event.clientY - this.last[1]) * speed);
            this.last = [event.clientX, event.clientY];
        });
        for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => (this.last = null));
    }

    show(data, right) {
        Object.assign(this, { data, right, dirty: true });
    }

    /** Draws if anything changed. */
    draw() {
        const { canvas, view } = this;
        const [width, height] = [canvas.clientWidth, canvas.clientHeight];
        if (!this.dirty || !width || !height) return;
        this.dirty = false;
        const ratio = devicePixelRatio;
        if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
            [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
        }
        const c = canvas.getContext('2d');
        c.setTransform(ratio, 0, 0, ratio, 0, 0);
        c.clearRect(0, 0, width, height);
        const radius = Math.min(width, height) / 2 - 14;
        const [sy, cy, sp, cp] = [Math.sin(view.yaw), Math.cos(view.yaw), Math.sin(view.pitch), Math.cos(view.pitch)];
        // from the sphere to the screen: right, down, towards the viewer
        const seen = (x, y, z) => {
            const [right, back] = [x * cy + z * sy, z * cy - x * sy];
            return [width / 2 + radius * right, height / 2 - radius * (y * cp - back * sp), back * cp + y * sp];
        };

        const shade = c.createRadialGradient(width / 2 - radius / 3, height / 2 - radius / 3, radius / 8, width / 2, height / 2, radius);
        shade.addColorStop(0, colour('--ball-light'));
        shade.addColorStop(1, colour('--ball-dark'));
        c.fillStyle = shade;
        c.beginPath();
        c.arc(width / 2, height / 2, radius, 0, 2 * Math.PI);
        c.fill();
        this.grid(c, seen);
        if (!this.data) return;

        const { embeddings, prototypes, labels } = this.data;
        const marks = [];
        for (let row = 0; row < ROWS; row++) {
            const [x, y, z] = embeddings.subarray(row * DIM, row * DIM + DIM);
            const length = Math.hypot(x, y, z);
            marks.push({ at: seen(x / length, y / length, z / length), label: labels[row], size: 2 + length / 20, wrong: this.right && !this.right[row] });
        }
        for (let label = 0; label < CLASSES; label++) {
            const [x, y, z] = prototypes.subarray(label * DIM, label * DIM + DIM);
            const length = Math.hypot(x, y, z);
            marks.push({ at: seen(x / length, y / length, z / length), label, size: 10, prototype: true });
        }
        // from the back to the front; discs that are seen lie above all dots
        const rank = ({ at, prototype }) => at[2] + (prototype && at[2] >= 0 ? 2 : 0);
        marks.sort((a, b) => rank(a) - rank(b));
        for (const mark of marks) this.mark(c, mark);
        c.globalAlpha = 1;
    }

    grid(c, seen) {
        c.strokeStyle = colour('--grid');
        c.lineWidth = 1;
        const line = (point) => {
            c.beginPath();
            let drawing = false;
            for (let i = 0; i <= 96; i++) {
                const [x, y, depth] = seen(...point((i / 96) * 2 * Math.PI));
                if (depth >= 0 && drawing) c.lineTo(x, y);
                else if (depth >= 0) c.moveTo(x, y);
                drawing = depth >= 0;
            }
            c.stroke();
        };
        for (let i = 0; i < 6; i++) {
            const [sin, cos] = [Math.sin((i * Math.PI) / 6), Math.cos((i * Math.PI) / 6)];
            line((t) => [Math.cos(t) * cos, Math.sin(t), Math.cos(t) * sin]);
        }
        for (let i = -2; i <= 2; i++) {
            const [sin, cos] = [Math.sin((i * Math.PI) / 6), Math.cos((i * Math.PI) / 6)];
            line((t) => [Math.cos(t) * cos, sin, Math.sin(t) * cos]);
        }
    }

    mark(c, { at: [x, y, depth], label, size, wrong, prototype }) {
        const front = depth >= 0;
        c.globalAlpha = front ? 1 : prototype ? 0.35 : 0.16;
        c.fillStyle = colour(`--class-${label + 1}`);
        c.beginPath();
        c.arc(x, y, size * (front ? 1 : 0.85), 0, 2 * Math.PI);
        c.fill();
        c.lineWidth = prototype ? 2 : 0.75;
        c.strokeStyle = colour(prototype ? '--disc-edge' : '--dot-edge');
        c.stroke();
        if (wrong && front) {
            c.lineWidth = 1;
            c.strokeStyle = colour('--text');
            c.beginPath();
            c.arc(x, y, size + 2.5, 0, 2 * Math.PI);
            c.stroke();
        }
        if (prototype) {
            c.fillStyle = colour(`--on-class-${label + 1}`);
            c.font = '600 12px system-ui, sans-serif';
            c.textAlign = 'center';
            c.textBaseline = 'middle';
            c.fillText(String(label + 1), x, y + 0.5);
        }
    }
}
