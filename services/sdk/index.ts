export {
  analyticsClient,
  auditClient,
  type ClientOptions,
  dataOf,
  gatewayClient,
  identityClient,
  memoryClient,
  SomaError,
  trainingClient,
} from './client.ts';
export type { RetryOptions } from './retry.ts';
export { type SessionEvent, type StreamOptions, sessionEvents } from './stream.ts';
