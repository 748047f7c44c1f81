export {
  ChartDeployment,
  type ChartDeploymentArgs,
  type ChartDeploymentOptions,
  KubernetesObject,
  kubernetesProviderVersion,
  type Transform,
} from './chart-deployment.ts';
export { describe, logicalName, type Manifest, type ManifestMetadata, typeToken } from './manifest.ts';
export { normalise, quantity } from './normalise.ts';
export { OutputResolver } from './output-resolver.ts';
export { bridgeApp, type SynthesizedObject, synthesize } from './synthesize.ts';
