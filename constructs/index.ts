export { Analytics, type AnalyticsProps } from './analytics/index.ts';
export { Audit, type AuditProps, AuditWitness, type AuditWitnessProps } from './audit/index.ts';
export { Bootstrap, type BootstrapProps } from './bootstrap/index.ts';
export { ClickHouse, type ClickHouseProps, type ClickHouseRenderer, type ClickHouseUser } from './clickhouse/index.ts';
export {
  type ApiServerAddress,
  bytesOf,
  type Connectable,
  type Connection,
  ContentConfigMap,
  type ContentConfigMapProps,
  contentHash,
  DeploymentWorkload,
  type DeploymentWorkloadProps,
  distinct,
  dnsLabel,
  type Endpoint,
  type Environment,
  type EnvValue,
  type FilesMount,
  httpsOrigin,
  type Identity as ObjectIdentity,
  InvalidPropError,
  instanceName,
  integerBetween,
  JobWorkload,
  type JobWorkloadProps,
  millicoresOf,
  nodePort,
  objectLabels,
  oddQuorum,
  oneOf,
  type Place,
  type Plane,
  type PlannedSecret,
  PodNetwork,
  type PodNetworkProps,
  type PodProps,
  type PortRange,
  type ProbeProps,
  type Probes,
  pinnedImage,
  placeOf,
  planeNamespace,
  planes,
  platformLabels,
  port,
  REGION_LABEL,
  RegionChart,
  type RegionChartProps,
  type Resources,
  RUN_AS,
  type Rule,
  type SecretMount,
  SecretPlan,
  type SecretPlanDocument,
  type SecretRef,
  type SecretRequest,
  ServiceAddress,
  type ServiceAddressProps,
  ServiceIdentity,
  type ServiceIdentityProps,
  StatefulWorkload,
  type StatefulWorkloadProps,
  selectorLabels,
  type VolumeClaim,
  type WorkloadProps,
  type WorkloadToken,
  workloadAudience,
  workloadTokenPath,
} from './core/index.ts';
export { Embeddings, type EmbeddingsProps } from './embeddings/index.ts';
export { type EmbeddingsServer, Gateway, type GatewayProps } from './gateway/index.ts';
export { Identity, type IdentityProps, identityLogoutUrl } from './identity/index.ts';
export {
  Kafka,
  type KafkaDeclaration,
  type KafkaGrant,
  type KafkaProps,
  type KafkaRenderer,
  type KafkaTopic,
} from './kafka/index.ts';
export { Keycloak, type KeycloakProps, type RealmDocument } from './keycloak/index.ts';
export { MemoryGateway, type MemoryGatewayProps } from './memory-gateway/index.ts';
export { type PlaneQuota, RegionNamespaces, type RegionNamespacesProps } from './namespace/index.ts';
export { type Bucket, ObjectStore, type ObjectStoreProps } from './object-store/index.ts';
export { Opa, type OpaProps } from './opa/index.ts';
export { OpenFga, type OpenFgaProps } from './openfga/index.ts';
export { Orchestrator, type OrchestratorProps } from './orchestrator/index.ts';
export { Policy, type PolicyProps, policyBucket } from './policy/index.ts';
export { Database, type DatabaseProps, Postgres, type PostgresProps } from './postgres/index.ts';
export { Qdrant, type QdrantProps, type QdrantRenderer } from './qdrant/index.ts';
export { type RayApplication, RayCluster, type RayClusterProps, type RayRenderer } from './ray/index.ts';
export { Relations, type RelationsProps } from './relations/index.ts';
export { Scaler, type ScalerProps, type ScalerRenderer } from './scaler/index.ts';
export { type RegisteredSchemas, SchemaRegistry, type SchemaRegistryProps } from './schema-registry/index.ts';
export { Slm, type SlmModel, type SlmProps } from './slm/index.ts';
export { Temporal, type TemporalProps, type TemporalService } from './temporal/index.ts';
export { modelsBucket, Training, type TrainingProps } from './training/index.ts';
