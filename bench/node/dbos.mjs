// DBOS Transact: setup | start SAGAS CONCURRENCY | queue SAGAS CONCURRENCY
//
// A workflow of three steps that write a row each.  start: begun by the program
// that runs them, so many at a time; queue: all enqueued before, then taken from
// the queue.  Its system database is the database the steps write to.
import { DBOS } from "@dbos-inc/dbos-sdk";
import pg from "pg";
import { begin, count, report, sleep } from "./common.mjs";

const [mode, ...args] = process.argv.slice(2);
const { PGHOST: host, PGUSER: user, PGDATABASE: database } = process.env;
const sagas = Number(args[0]);
const concurrency = Number(args[1]);
const pool = new pg.Pool({ max: 20 });
const nothing = () => {};

DBOS.setConfig({
	name: "bench",
	systemDatabaseUrl: `postgresql://${user}@localhost/${database}?host=${encodeURIComponent(host)}`,
	systemDatabasePool: new pg.Pool({ max: 20 }),
	applicationVersion: "1",
	logger: { info: nothing, debug: nothing, warn: console.error, error: console.error },
});

// a named statement: parsed once in a connection
async function write(step, n) {
	await pool.query({
		name: "write", text: "INSERT INTO saga_effect (saga_id, step, n) VALUES ($1, $2, $3)",
		values: [DBOS.workflowID, step, n],
	});
	return { wrote: step };
}
let running = false;
const saga = DBOS.registerWorkflow(async (n) => {
	// how soon a new queue is noticed is not measured
	if (!running)
		begin();
	running = true;
	for (const step of ["reserve", "pay", "book"])
		await DBOS.runStep(() => write(step, n), { name: step });
}, { name: "saga" });

await DBOS.launch();

// enough clients that each start one and, if told to, wait for its end
async function start(options, wait) {
	let next = 0;
	await Promise.all(Array.from({ length: concurrency }, async () => {
		while (next < sagas) {
			const handle = await DBOS.startWorkflow(saga, options)(++next);
			if (wait) {
				await handle.getResult();
				count(3);
			}
		}
	}));
}

if (mode === "start") {
	await start({}, true);
	report();
} else if (mode === "queue") {
	await start({ queueName: "bench" }, false);
	await pool.query("VACUUM (ANALYZE)");
	await DBOS.registerQueue("bench", { workerConcurrency: concurrency, minPollingIntervalMs: 10 });
	for (;;) {
		const { rows } = await pool.query("SELECT FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING') LIMIT 1");
		if (rows.length === 0)
			break;
		await sleep(20);
	}
	count(3 * sagas);
	report();
}
await DBOS.shutdown();
await pool.end();
process.exit(0);
