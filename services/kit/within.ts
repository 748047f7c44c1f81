/**
 * Waits for work that can't be told to stop. What it brings later is nobody's, and its failure then is not reported.
 * @param limit milliseconds
 * @throws Error when there is no answer within the limit; the error of the work before that
 */
export async function within<Value>(limit: number, work: Promise<Value>): Promise<Value> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`no answer within ${limit} ms`)), limit);
  work.catch(() => undefined);
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
