export { type ImageDefinition, type ImageName, imageDefinition, imageName, imageNames } from './catalogue.ts';
export { imageReference, imageTag } from './tag.ts';
export { user, versions } from './versions.ts';
