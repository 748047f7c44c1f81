export { ConfigError, count, type Environment, httpsUrl, port, readConfig, text } from './config.ts';
export {
  type ControlListener,
  type ControlSnapshot,
  ControlState,
  type ControlStateOptions,
  ControlView,
  controlPath,
  controlSnapshotSchema,
  controlVariables,
  type Revocable,
} from './control.ts';
export { type Check, type HealthOptions, HealthServer, type Readiness, startHealthServer } from './health.ts';
export {
  explainKafkaError,
  type KafkaConfig,
  KafkaError,
  kafkaVariables,
  type MessageSink,
  type OutgoingMessage,
} from './kafka.ts';
export { type ConsumerOptions, type IncomingMessage, KafkaConsumer } from './kafka-consumer.ts';
export { KafkaProducer, type ProducerOptions } from './kafka-producer.ts';
export { asTenant, createLogger, type Logger, type LoggerOptions, messageOf, reasonOf } from './log.ts';
export { appendEvents, OutboxError, type OutboxEvent, outboxInsert, outboxMigration } from './outbox.ts';
export { type Backlog, OutboxRelay, type OutboxRelayOptions, type RelayStatus } from './outbox-relay.ts';
export { connectionSettings, createPool, type PostgresConfig, postgresVariables } from './postgres.ts';
export { onShutdown, runSteps, type ShutdownStep } from './shutdown.ts';
export { endWhenRenewed, type TemporalConfig, temporalConnectionOptions, temporalVariables } from './temporal.ts';
export {
  type IsolationGap,
  isolateTenants,
  isolationGaps,
  requireIsolation,
  TenantDatabase,
  tenantPattern,
  tenantSetting,
  withTenant,
} from './tenancy.ts';
export {
  fetchTrusting,
  type HttpAnswer,
  type HttpClient,
  type HttpRequest,
  onFileChange,
  openHttpClient,
  readTlsFiles,
  type TlsFiles,
} from './tls.ts';
export {
  type Attributes,
  contextFrom,
  contextOf,
  failSpan,
  inChildSpan,
  inSpan,
  inSpanSync,
  isTracing,
  type Span,
  SpanKind,
  startTracing,
  stopTracing,
  tenantOf,
  traceHeaders,
  tracingVariables,
} from './tracing.ts';
export { within } from './within.ts';
export {
  type Workload,
  WorkloadKeysUnavailable,
  WorkloadRefused,
  WorkloadVerifier,
  type WorkloadVerifierOptions,
  workloadToken,
  workloadTokenPath,
  workloadVariables,
} from './workload.ts';
