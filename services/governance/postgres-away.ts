/** Postgres away, or on its way from one primary to the next (classes 08 and 57 of its error codes). */
export function isPostgresAway(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = 'code' in error ? String(error.code) : '';
  return /^(08|57P|ECONN|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EPIPE)/.test(code) || /timeout|terminated/i.test(error.message);
}
