/** What the benchmark asks of a server process, over its IPC channel. */

/** Figures of a process. */
export interface Usage {
  /** User and system time, microseconds. */
  readonly cpu: number;
  /** Resident memory, bytes. */
  readonly rss: number;
  /** What the server itself counts. */
  readonly counted: Readonly<Record<string, number>>;
}

/** Answers each message with the figures of this process; tells the port first. */
export function report(port: number, counted: () => Readonly<Record<string, number>>): void {
  process.on('message', () => {
    const { user, system } = process.cpuUsage();
    process.send?.({ cpu: user + system, rss: process.memoryUsage.rss(), counted: counted() } satisfies Usage);
  });
  process.on('disconnect', () => process.exit(0));
  process.send?.({ port });
}
