export { type PlaneQuota, RegionNamespaces, type RegionNamespacesProps } from './region-namespaces.ts';
