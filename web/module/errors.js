// Errors in plain words: our own, and those of the planner.

/** An error in plain words; `code` is the name of the crate's error: `Limit`, `Recompile`, `Usage`, `DeviceLost`, … */
export class MarginSoftmaxError extends Error {
    constructor(code, message, options) {
        super(message, options);
        this.name = 'MarginSoftmaxError';
        this.code = code;
    }
}

export const fail = (code, message) => {
    throw new MarginSoftmaxError(code, message);
};

export const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

/** Refuses unknown options: a misspelt one must not be ignored silently. */
export const only = (what, given, known) => {
    const extra = Object.keys(given).find((name) => given[name] !== undefined && !known.includes(name));
    if (extra !== undefined) fail('Name', `\`${extra}\` is not a known ${what}; known are: ${known.join(', ')}`);
};

/** Calls the planner; its errors become ours, with what to do about a limit. */
export const asked = (call) => {
    try {
        return call();
    } catch (error) {
        if (!error?.code) throw error;
        // the limit by the name that requestDevice knows
        const [, fact, limit] = (error.code === 'Limit' && /^(.*?\(`(m\w+)`\))/.exec(error.message)) || [];
        const hint = limit && `${fact}: ask for more with requiredLimits: { ${camel(limit)}: … } when you request the device`;
        // inputs by the name that they have here
        const message = error.message.replace(/`(soft_labels\.|class_weights|row_weights|class_margins|row_margins|row_losses|target_cosines)[^`]*`/g, camel);
        throw new MarginSoftmaxError(error.code, hint ?? message, { cause: error });
    }
};
