export { type RayApplication, RayCluster, type RayClusterProps, type RayRenderer } from './ray-cluster.ts';
