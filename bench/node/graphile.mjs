// graphile-worker: setup | fill N DETAIL | run CLIENTS SECONDS N | cycle CLIENTS SECONDS BATCH DETAIL
import { Logger, makeWorkerUtils, run, runMigrations } from "graphile-worker";
import pg from "pg";
import { begin, count, counted, report, seconds, sleep } from "./common.mjs";

const [mode, ...args] = process.argv.slice(2);
const pool = new pg.Pool({ max: 20 });
const logger = new Logger(() => () => {});
// one commit for many finished jobs, and 500 jobs fetched at a time
const preset = { worker: { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } };

async function add(utils, n, detail) {
	const payload = JSON.parse(detail);
	for (let left = n; left > 0; left -= 1000)
		await utils.addJobs(Array.from({ length: Math.min(left, 1000) }, () => ({ identifier: "bench", payload })));
}

async function consume(clients, limit, until, produce) {
	begin();
	const runner = await run({
		pgPool: pool, logger, preset, concurrency: clients, noHandleSignals: true,
		taskList: { bench: () => count(1) },
	});
	if (produce)
		begin();
	while (seconds() < limit && counted() < until) {
		if (produce)
			await produce();
		else
			await sleep(5);
	}
	report();
	await runner.stop();
}

if (mode === "setup") {
	await runMigrations({ pgPool: pool, logger });
} else {
	const utils = await makeWorkerUtils({ pgPool: pool, logger });
	if (mode === "fill") {
		await add(utils, Number(args[0]), args[1]);
	} else if (mode === "run") {
		await consume(Number(args[0]), Number(args[1]), Number(args[2]));
	} else if (mode === "cycle") {
		// a producer that stays a few batches ahead
		let added = 0;
		await consume(Number(args[0]), Number(args[1]), Infinity, async () => {
			if (added - counted() < 10000) {
				await add(utils, 1000, args[3]);
				added += 1000;
			} else {
				await sleep(2);
			}
		});
	}
	await utils.release();
}
await pool.end();
process.exit(0);
