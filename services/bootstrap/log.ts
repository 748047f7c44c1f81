/** Values of a log line. Never a secret: callers log names, counts and reasons only. */
export type LogFields = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;

type Level = 'info' | 'warn' | 'error';

function write(level: Level, message: string, fields: LogFields): void {
  const line = { time: new Date().toISOString(), level, message, ...fields };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** One JSON object per line on stdout, the shape that the platform's log collector reads. */
export const log = {
  info: (message: string, fields: LogFields = {}) => write('info', message, fields),
  warn: (message: string, fields: LogFields = {}) => write('warn', message, fields),
  error: (message: string, fields: LogFields = {}) => write('error', message, fields),
};
