// pg-boss: setup | fill N DETAIL | send CLIENTS SECONDS DETAIL | run CLIENTS SECONDS N BATCH |
// cycle CLIENTS SECONDS BATCH DETAIL
import { PgBoss } from "pg-boss";
import { begin, count, counted, report, seconds, sleep } from "./common.mjs";

const [mode, ...args] = process.argv.slice(2);
const boss = new PgBoss({
	host: process.env.PGHOST, user: process.env.PGUSER, database: process.env.PGDATABASE,
	max: 20, schedule: false, supervise: false,
});
boss.on("error", (error) => { console.error(error); process.exit(1); });
await boss.start();

const insert = (n, data) => boss.insert("bench", Array.from({ length: n }, () => ({ data })));

// Every client: (put a batch,) fetch a batch, complete it.
async function consume(clients, limit, until, batchSize, data) {
	begin();
	await Promise.all(Array.from({ length: clients }, async () => {
		while (seconds() < limit && counted() < until) {
			if (data)
				await insert(batchSize, data);
			const jobs = await boss.fetch("bench", { batchSize });
			if (jobs.length === 0) {
				await sleep(1);
				continue;
			}
			await boss.complete("bench", jobs.map((job) => job.id));
			count(jobs.length);
		}
	}));
	report();
}

if (mode === "setup") {
	await boss.createQueue("bench");
} else if (mode === "fill") {
	const data = JSON.parse(args[1]);
	for (let left = Number(args[0]); left > 0; left -= 1000)
		await insert(Math.min(left, 1000), data);
} else if (mode === "send") {
	const data = JSON.parse(args[2]);
	begin();
	await Promise.all(Array.from({ length: Number(args[0]) }, async () => {
		while (seconds() < Number(args[1])) {
			await boss.send("bench", data);
			count(1);
		}
	}));
	report();
} else if (mode === "run") {
	await consume(Number(args[0]), Number(args[1]), Number(args[2]), Number(args[3]));
} else if (mode === "cycle") {
	await consume(Number(args[0]), Number(args[1]), Infinity, Number(args[2]), JSON.parse(args[3]));
}
await boss.stop({ graceful: false });
process.exit(0);
