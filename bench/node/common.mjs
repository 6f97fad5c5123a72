// What the programs of the node peers share: counting as consume.c does.

export const started = { at: 0 };
const perSecond = [];
let total = 0;

export const seconds = () => (performance.now() - started.at) / 1000;
export const begin = () => { started.at = performance.now(); };
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const counted = () => total;

export function count(n) {
	const second = Math.floor(seconds());
	perSecond[second] = (perSecond[second] ?? 0) + n;
	total += n;
}

// Time apart for putting cannot be told here: a second is a busy second.
export function report() {
	const elapsed = seconds();
	for (let second = 0; second < elapsed; second++)
		console.log(`${second} ${perSecond[second] ?? 0} 1.0`);
	console.log(`total ${total} ${elapsed} ${elapsed}`);
}
