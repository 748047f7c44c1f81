import * as kubernetes from '@pulumi/kubernetes';
import * as pulumi from '@pulumi/pulumi';
import { kubernetesProviderVersion, Region, type RegionArgs, regionSizes } from '@somagent/components';
import { imageReference } from '@somagent/images';
import { type RegionConfig, readConfig, type StackConfig } from './config.ts';
import { type StackOutputs, stackOutputs } from './outputs.ts';
import { platformRealm } from './realm.ts';

/** The Pulumi program: every region of the stack that runs. */
export async function program(): Promise<StackOutputs> {
  const config = readConfig();
  const realm = platformRealm(pulumi.getStack(), config);
  const regions = new Map(config.regions.map((region) => [region, deploy(region, config, realm)]));
  return stackOutputs(
    config,
    regions,
    realm.clients.filter(({ workload }) => workload === undefined).map(({ clientId }) => clientId),
  );
}

function deploy(region: RegionConfig, config: StackConfig, realm: RegionArgs['realm']): Region {
  const args: RegionArgs = {
    ...region,
    image: (name) => imageReference(name, { registry: config.registry }),
    size: regionSizes[config.size],
    apiServerCidrs: config.apiServerCidrs,
    storageClass: config.storageClass,
    rayRenderer: config.rayRenderer,
    kafkaRenderer: config.kafkaRenderer,
    registry: config.registry,
    realm,
  };
  return new Region(region.name, args, { provider: provider(region) });
}

/**
 * The cluster of a region, never the one that happens to be current. ConfigMaps change in place: replacing one would
 * recreate every Deployment that mounts it.
 */
function provider(region: RegionConfig): pulumi.ProviderResource {
  return new kubernetes.Provider(
    region.name,
    {
      ...(region.context !== undefined && { context: region.context }),
      ...(region.kubeconfig !== undefined && { kubeconfig: region.kubeconfig }),
      enableServerSideApply: true,
      enableConfigMapMutable: true,
    },
    { version: kubernetesProviderVersion },
  );
}
