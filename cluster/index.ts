export { apiAddress, type Layout, layout, registryAddress } from './layout.ts';
export { startCluster } from './node/start.ts';
export { type ClusterStatus, clusterStatus, formatStatus, type Trouble } from './node/status.ts';
export { type StopOptions, stopCluster } from './node/stop.ts';
export { installPackages } from './packages.ts';
export { formatProblems, machineProbes, type Probes, type Problem, preflight } from './preflight.ts';
export { type Progress, startProgress } from './progress.ts';
export { buildToolchain, toolPath } from './toolchain.ts';
