export { ContentConfigMap, type ContentConfigMapProps } from './content-config-map.ts';
export { contentHash } from './content-hash.ts';
export { type Identity, instanceName, objectLabels, selectorLabels } from './labels.ts';
export { MODELS_FILE, type ModelPrices, type ModelServer, modelsFile } from './models-file.ts';
export {
  type Environment,
  type EnvValue,
  type FilesMount,
  type PodProps,
  type ProbeProps,
  type Probes,
  RUN_AS,
  type SecretMount,
  type WorkloadToken,
  workloadAudience,
  workloadTokenPath,
} from './pod.ts';
export {
  type ApiServerAddress,
  type Endpoint,
  PodNetwork,
  type PodNetworkProps,
  type PortRange,
} from './pod-network.ts';
export { bytesOf, millicoresOf, type Resources } from './quantity.ts';
export {
  type Place,
  type Plane,
  placeOf,
  planeNamespace,
  planes,
  platformLabels,
  REGION_LABEL,
  RegionChart,
  type RegionChartProps,
} from './region-chart.ts';
export {
  type PlannedSecret,
  SecretPlan,
  type SecretPlanDocument,
  type SecretRef,
  type SecretRequest,
} from './secret-plan.ts';
export { type Rule, ServiceIdentity, type ServiceIdentityProps } from './service-identity.ts';
export {
  cronSchedule,
  distinct,
  dnsLabel,
  httpsOrigin,
  InvalidPropError,
  integerBetween,
  nodePort,
  oddQuorum,
  oneOf,
  pinnedImage,
  port,
} from './validate.ts';
export {
  type Connectable,
  type Connection,
  DeploymentWorkload,
  type DeploymentWorkloadProps,
  JobWorkload,
  type JobWorkloadProps,
  ScheduledWorkload,
  type ScheduledWorkloadProps,
  ServiceAddress,
  type ServiceAddressProps,
  StatefulWorkload,
  type StatefulWorkloadProps,
  type VolumeClaim,
  type WorkloadProps,
} from './workload.ts';
